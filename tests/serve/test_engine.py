"""Continuous batching behind HTTP: company changes no answer, nobody's answer is another's, leaving frees the place."""

import asyncio
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from luthier.serve.base import Serve
from luthier.serve.engines.base import ENGINES, EngineFailed, Settings, TimedOut, Weights
from luthier.serve.engines.transformers import Transformers
from luthier.testing import check_spec
from luthier.types import Message

QUESTIONS = [f"Question {number}: " + "why? " * (number % 7) for number in range(16)]


def chat(client, model, question, **options):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}],
                                          **{"max_tokens": 24, **options})


def test_the_engine_s_settings_are_a_spec():
    check_spec(ENGINES, Transformers(threads=1))


def test_company_changes_no_answer_and_base_and_tuned_are_never_swapped(client, live, reference):
    asked = [(("base", "tuned")[at % 2], question) for at, question in enumerate(QUESTIONS)]
    expected = [reference(weights, (Message(role="system", content="You are the help desk."),
                                    Message(role="user", content=question)), 24).text for weights, question in asked]
    assert all(ours != theirs for ours, theirs in itertools.pairwise(expected))
    valve = Valve(live.service)
    valve.open.clear()
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(chat, client, f"desk:{weights}", question) for weights, question in asked]
        live.wait_until(lambda: live.service.admission.open == 16)
        live.service.engine._held["base"].batcher.tick = valve.count(live.service.engine._held["base"].batcher)
        valve.open.set()
        answers = [job.result().choices[0].message.content for job in jobs]
    assert answers == expected
    assert valve.most >= 6  # of 8 for the base model: they did run together


class Valve:
    """Holds the worker before each tick while closed."""

    def __init__(self, service):
        self.open = threading.Event()
        self.open.set()
        for held in service.engine._held.values():
            held.batcher.tick = self.wrap(held.batcher.tick)

    most = 0

    def count(self, batcher):
        """The tick, noting the largest batch."""
        tick = batcher.tick

        def counted():
            self.most = max(self.most, batcher.num_running)
            return tick()

        return counted

    def wrap(self, tick):
        def held_tick():
            self.open.wait(20)
            return tick()

        return held_tick


@pytest.fixture
def narrow(release, serve_release, tmp_path):
    """One request runs, one waits, and a valve."""
    spec = Serve(engine=Transformers(threads=1, max_running=1), max_queue=1, max_output_tokens=200,
                 request_timeout_s=30)
    with serve_release(release, spec, tmp_path) as found:
        found.valve = Valve(found.service)
        yield found
        found.valve.open.set()


def test_the_queue_is_bounded_and_says_when_to_come_again(narrow, key):
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key=key, max_retries=0)
    narrow.valve.open.clear()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(chat, client, "desk:base", question) for question in QUESTIONS[:2]]
        narrow.wait_until(lambda: narrow.service.admission.open == 2)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="Too many requests") as error:
                chat(client, "desk:base", "one too many", stream=stream)
            assert int(error.value.response.headers["Retry-After"]) >= 1 and error.value.code == "queue_full"
        narrow.valve.open.set()
        assert all(job.result().usage.completion_tokens > 0 for job in jobs)
    assert chat(client, "desk:base", "now there is room").choices
    assert narrow.service.admission.open == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(narrow, key, stream):
    body = {"model": "desk:base", "max_tokens": 200, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    engine = narrow.service.engine
    narrow.valve.open.clear()

    async def leave():
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
            task = asyncio.create_task(http.post(f"{narrow.url}/v1/chat/completions", json=body))
            while narrow.service.admission.open == 0:
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(leave())
    narrow.wait_until(lambda: narrow.service.admission.open == 0)
    job_tokens = engine._held["base"].batcher
    narrow.valve.open.set()
    narrow.wait_until(lambda: not job_tokens.busy)
    metrics = httpx.get(f"{narrow.url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    assert 'luthier_cancelled_total{model="desk:base"} 1.0' in metrics
    tokens = float(metrics.split('luthier_output_tokens_total{model="desk:base"} ')[1].split()[0])
    assert tokens < 200


def test_an_answer_that_takes_too_long_ends_with_504_and_frees_its_place(release, serve_release, tmp_path, key):
    spec = Serve(engine=Transformers(threads=1, max_running=1), request_timeout_s=0.3)
    with serve_release(release, spec, tmp_path) as found:
        client = openai.OpenAI(base_url=f"{found.url}/v1", api_key=key, max_retries=0)
        valve = Valve(found.service)
        slow = found.service.engine._held["base"].batcher.tick
        found.service.engine._held["base"].batcher.tick = lambda: (time.sleep(0.1), slow())[1]
        with pytest.raises(openai.InternalServerError, match=r"longer than 0\.3 s") as error:
            chat(client, "desk:base", "x", max_tokens=200)
        assert error.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"longer than 0\.3 s"):  # in a stream it is an event
            list(chat(client, "desk:base", "x", max_tokens=200, stream=True))
        found.wait_until(lambda: found.service.engine.num_running == 0 and found.service.admission.open == 0)
        found.service.engine._held["base"].batcher.tick = slow
        assert chat(client, "desk:base", "x", max_tokens=2).choices and valve


def test_a_model_that_breaks_fails_its_requests_and_goes_on_with_the_next(narrow, key):
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key=key, max_retries=0)
    held = narrow.service.engine._held["base"]

    def broken():
        raise RuntimeError("secret detail: out of memory")

    held.batcher.tick = broken
    with pytest.raises(openai.InternalServerError, match="model failed on this request") as error:
        chat(client, "desk:base", "x")
    assert "secret" not in str(error.value)
    assert chat(client, "desk:base", "x").usage.completion_tokens > 0


def test_a_client_that_stops_reading_does_not_keep_its_place(narrow, key, monkeypatch):
    """Its socket stays open and full; the server gives up on it."""
    monkeypatch.setattr("luthier.serve.stream.STALL_S", 0.3)
    shape = narrow.service.lineage
    narrow.service.lineage = lambda job: {**shape(job), "bulk": "x" * 8_000_000}  # more than any socket buffer
    host, port = narrow.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "desk:base", "max_tokens": 4, "stream": True,
                       "messages": [{"role": "user", "content": "x"}]}).encode()
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                        + f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        narrow.wait_until(lambda: narrow.service.admission.open == 1)
        narrow.wait_until(lambda: narrow.service.admission.open == 0)


def run(engine, name, ids, **options):
    async def collect():
        settings = Settings(**{"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "seed": 0, "timeout_s": 20,
                               **options})
        return [piece async for piece in engine.stream(name, ids, settings)]

    return asyncio.run(collect())


def test_the_engine_by_itself_follows_the_seam(release):
    weights = Weights(folder=release / "base", template=None, stop_ids=(2,), dtype="float32")
    engine = Transformers(threads=1, dtype="bfloat16").open()
    engine.load({"base": weights})
    assert next(engine._held["base"].module.parameters()).dtype.is_floating_point
    assert str(next(engine._held["base"].module.parameters()).dtype) == "torch.bfloat16"
    ids = engine.encode("base", "plain text")
    pieces = run(engine, "base", ids)
    assert pieces[-1].finish in ("stop", "length") and pieces[-1].num_tokens <= 8
    assert all(piece.finish is None for piece in pieces[:-1])
    assert engine.context_length("base") == 1024 and engine.num_running == 0 and engine.num_waiting == 0
    with pytest.raises(TimedOut):
        run(engine, "base", ids, timeout_s=-1.0)
    engine.close()
    with pytest.raises(EngineFailed, match="stopping"):
        run(engine, "base", ids)


def test_defaults_of_the_settings_hold_where_a_request_says_nothing(release, serve_release, tmp_path, key):
    spec = Serve(engine=Transformers(threads=1), systems=("tuned",), temperature=1.5, max_output_tokens=6,
                 max_prompt_tokens=None, answer_log=0)
    with serve_release(release, spec, tmp_path) as found:
        client = openai.OpenAI(base_url=f"{found.url}/v1", api_key=key, max_retries=0)
        messages = [{"role": "user", "content": "x"}]
        replies = [client.chat.completions.create(model="desk", messages=messages) for _ in range(3)]
        assert len({reply.choices[0].message.content for reply in replies}) == 3  # it samples
        assert all(reply.usage.completion_tokens <= 6 for reply in replies)
        assert replies[0].luthier["model"] == "tuned"  # the verdict's choice is not offered: the first that is
        with pytest.raises(openai.BadRequestError, match="at most 1023"):  # the model's own limit
            chat(client, "desk", "x" * 1200)
        with pytest.raises(openai.BadRequestError, match="at most 6"):
            chat(client, "desk", "x", max_tokens=7)
    assert not (tmp_path / ".luthier" / "answers.jsonl").exists()
