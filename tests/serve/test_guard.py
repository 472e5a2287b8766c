"""The door: who comes in, how much they may bring, and what the answer's headers say."""

import asyncio
import json
import logging
import os
import stat

import httpx
import pytest

from luthier.errors import ServeError, SpecError
from luthier.serve.answers import AnswerLog
from luthier.serve.base import Serve
from luthier.serve.engines.transformers import Transformers
from luthier.serve.guard import Guard, _host, find_key
from luthier.spec import parse
from luthier.types import read_jsonl

BODY = {"model": "desk:base", "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}


def get(live, path, key=None, **options):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(live.url + path, headers={**headers, **options.pop("headers", {})}, **options)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/embeddings", "/metrics", "/docs",
                                  "/openapi.json", "/redoc", "/nothing/here", "/ui/../v1/models", "/ui/secret"])
def test_without_the_key_nothing_but_health_and_the_empty_page_is_told(live, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Authorization": "Basic x"},
                    {"Authorization": "Bearer ключ".encode()}):
        reply = httpx.get(live.url + path, headers=headers)
        assert reply.status_code == 401 and reply.json()["error"]["code"] == "invalid_api_key"
        assert "desk" not in reply.text


def test_health_and_page_are_open_and_tell_nothing_of_the_release(live):
    assert get(live, "/healthz").json() == {"status": "ok"}
    for path in ("/", "/ui/chat.js", "/ui/chat.css", "/favicon.ico"):
        reply = get(live, path)
        assert reply.status_code == 200 and "desk" not in reply.text.lower().replace("desktop", "")


def test_with_the_key_unknown_paths_and_methods_are_errors_in_openai_s_shape(live, key):
    for reply, status in ((get(live, "/docs", key), 404), (get(live, "/v1/chat/completions", key), 405)):
        assert reply.status_code == status and set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_every_answer_carries_the_security_headers(live, key):
    for reply in (get(live, "/"), get(live, "/v1/models"), get(live, "/v1/models", key), get(live, "/nothing", key)):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in reply.headers


def test_a_body_over_the_limit_is_413_with_and_without_a_stated_length(live, key):
    def chunks():
        for _ in range(11):
            yield b"x" * 100_000

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for content in (b"x" * 1_000_001, chunks()):
        reply = httpx.post(f"{live.url}/v1/chat/completions", content=content, headers=headers)
        assert reply.status_code == 413 and reply.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(("content", "code"), [
    (b"{", "invalid_json"), (b"[1]", "invalid_json"), (b"\xff\xfe", "invalid_json"), (b"[" * 100_000, "invalid_json"),
    (b"{}", "missing_required_parameter"), (b'{"model": 3, "messages": []}', "invalid_value"),
    (b'{"model": "desk", "messages": [], "temperature": NaN}', "invalid_value"),
    (b'{"model": "desk", "messages": [{"role": "user", "content": "half a pair \\ud83d"}]}', "invalid_value"),
])
def test_bodies_that_are_no_request_are_400(live, key, content, code):
    reply = httpx.post(f"{live.url}/v1/chat/completions", content=content,
                       headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)


def test_a_fault_of_ours_is_500_without_details(release, serve_release, tmp_path, key, monkeypatch):
    async def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("luthier.serve.service.Service.chat_job", broken)
    with serve_release(release, Serve(engine=Transformers(threads=1), systems=("base",)), tmp_path) as live:
        reply = httpx.post(f"{live.url}/v1/chat/completions", json=BODY, headers={"Authorization": f"Bearer {key}"})
        assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal_error"
        assert "secret" not in reply.text and live.service.admission.open == 0


def test_only_json_is_read_so_that_a_form_on_a_web_page_cannot_ask(live, key):
    reply = httpx.post(f"{live.url}/v1/chat/completions", content=json.dumps(BODY),
                       headers={"Authorization": f"Bearer {key}", "Content-Type": "text/plain"})
    assert reply.status_code == 400 and "application/json" in reply.json()["error"]["message"]


def test_without_a_key_only_loopback_names_are_answered(release, serve_release, tmp_path):
    spec = Serve(engine=Transformers(threads=1), no_key=True, systems=("base",), cors_origins=("https://a.example",),
                 chat_page=False)
    with serve_release(release, spec, tmp_path) as live:
        assert [card["id"] for card in get(live, "/v1/models").json()["data"]] == ["desk", "desk:base",
                                                                                   "desk:embedding"]
        assert [*live.service.engine._held] == ["base"]  # the tuned weights were not loaded
        assert get(live, "/v1/models", headers={"Host": "evil.example"}).status_code == 403
        assert get(live, "/").status_code == 404
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}
        reply = httpx.options(f"{live.url}/v1/chat/completions", headers=asked)
        assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == "https://a.example"
        reply = httpx.options(f"{live.url}/v1/chat/completions", headers={**asked, "Origin": "https://b.example"})
        assert "access-control-allow-origin" not in reply.headers
        assert not (tmp_path / ".luthier" / "serve.key").exists()


@pytest.mark.parametrize(("header", "name"), [("localhost:8000", "localhost"), ("127.0.0.1", "127.0.0.1"),
                                              ("[::1]:8000", "::1"), ("evil.example:80", "evil.example")])
def test_host_headers_are_read_without_their_port(header, name):
    assert _host(header) == name


@pytest.mark.parametrize(("data", "said"), [
    ({"no_key": True, "host": "0.0.0.0"}, "loopback host only"), ({"systems": []}, "empty list"),
    ({"port": 70000}, "port"), ({"engine": {"kind": "transfomers"}}, "did you mean 'transformers'"),
    ({"cors_orgins": []}, "did you mean 'cors_origins'"),
])
def test_settings_that_make_no_sense_are_refused(data, said):
    with pytest.raises(SpecError, match=said):
        parse(Serve, data)


def test_the_key_file_is_made_once_and_is_for_its_owner(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    state = tmp_path / ".luthier"
    key, fresh = find_key(state, "SOME_KEY")
    assert fresh and len(key) > 40 and find_key(state, "SOME_KEY") == (key, False)
    assert stat.S_IMODE((state / "serve.key").stat().st_mode) == 0o600
    monkeypatch.setenv("SOME_KEY", " from-the-environment ")
    assert find_key(state, "SOME_KEY") == ("from-the-environment", False)


@pytest.mark.parametrize(("damage", "said"), [
    (lambda file: file.write_text("\n"), "empty or damaged"), (lambda file: file.chmod(0o644), "chmod 600"),
    (lambda file: file.write_bytes(b"\xff\xfe" * 20), "cannot be used"),
])
def test_an_unusable_key_file_is_one_sentence(tmp_path, monkeypatch, damage, said):
    monkeypatch.delenv("SOME_KEY", raising=False)
    find_key(tmp_path, "SOME_KEY")
    damage(tmp_path / "serve.key")
    with pytest.raises(ServeError, match=said):
        find_key(tmp_path, "SOME_KEY")


def test_keys_are_compared_by_digests_of_equal_length(monkeypatch):
    seen = []
    monkeypatch.setattr("luthier.serve.guard.hmac.compare_digest", lambda a, b: seen.append((a, b)) or a == b)

    async def app(scope, receive, send):
        raise AssertionError("came in")

    async def send(message):
        pass

    guard = Guard(app, key="k" * 40, open_paths=(), max_body_bytes=10, hosts=None)
    asyncio.run(guard({"type": "http", "path": "/", "headers": [(b"authorization", b"Bearer short")]}, None, send))
    assert len(seen) == 1 and len(seen[0][0]) == len(seen[0][1]) == 32


def test_the_log_traces_an_answer_to_its_passages_without_its_text(live, key):
    question = "When are invoices sent?"
    reply = httpx.post(f"{live.url}/v1/chat/completions", headers={"Authorization": f"Bearer {key}"},
                       json={**BODY, "model": "desk", "messages": [{"role": "user", "content": question}]}).json()
    file = live.root / ".luthier" / "answers.jsonl"
    row = next(row for row in read_jsonl(file) if row["id"] == reply["id"])
    assert row["passages"] == [c["passage"] for c in reply["choices"][0]["message"]["citations"]]
    assert (row["release"], row["model"], row["system"]) == ("desk/1", "desk", "tuned_retrieval")
    assert row["completion_tokens"] == 2 and row["finish"] == "length" and len(row["question_sha256"]) == 64
    assert question not in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_log_is_bounded_and_keeps_the_newest(tmp_path):
    log = AnswerLog(tmp_path / "a.jsonl", rows=5, questions="text")
    for number in range(23):
        log.add(id=str(number), question=f"q{number}")
        assert len((tmp_path / "a.jsonl").read_text().splitlines()) < 10
    rows = list(read_jsonl(tmp_path / "a.jsonl"))
    assert 5 <= len(rows) < 10 and rows[-1] == {"id": "22", "question": "q22"}
    again = AnswerLog(tmp_path / "a.jsonl", rows=5, questions="none")  # a restarted server counts what is there
    for number in range(5):
        again.add(id=f"new {number}", question="q")
    rows = list(read_jsonl(tmp_path / "a.jsonl"))
    assert len(rows) < 10 and rows[-1] == {"id": "new 4"}
    AnswerLog(tmp_path / "none.jsonl", rows=0, questions="text").add(id="1", question="q")
    assert not (tmp_path / "none.jsonl").exists()


def test_a_log_that_cannot_be_written_stops_no_answer(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        AnswerLog(tmp_path / "file" / "a.jsonl", rows=5, questions="text").add(id="1", question="q")
    assert "cannot be written" in caplog.text


def test_metrics_count_requests_and_tokens(live, key):
    def value(name):
        text = get(live, "/metrics", key).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    done = 'luthier_requests_total{model="desk:base",route="/v1/chat/completions",status="200"}'
    refused = 'luthier_requests_total{model="",route="/v1/chat/completions",status="404"}'
    tokens = 'luthier_output_tokens_total{model="desk:base"}'
    before = [value(name) for name in (done, refused, tokens)]
    for model in ("desk:base", "made-up-by-a-caller"):
        httpx.post(f"{live.url}/v1/chat/completions", headers={"Authorization": f"Bearer {key}"},
                   json={**BODY, "model": model})
    assert [value(name) for name in (done, refused, tokens)] == [before[0] + 1, before[1] + 1, before[2] + 2]
    assert "made-up" not in get(live, "/metrics", key).text
    assert os.environ.get("LUTHIER_API_KEY") != key  # the fixture has put the environment back
