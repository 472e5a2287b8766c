"""EndpointChat against a real HTTP server on the loopback that misbehaves in every way an endpoint can."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from luthier.errors import ModelError
from luthier.models.endpoint import EndpointChat
from luthier.types import Message

PROMPTS = [(Message(role="user", content=f"question {number}"),) for number in range(6)]


class Server(ThreadingHTTPServer):
    """Answers with `replies` in turn, then like a well-behaved endpoint; remembers what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list = []
        self.seen: list[tuple[str, dict, dict]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.pause = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that gave up waiting is part of a test, not news

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            reply = self.server.replies.pop(0) if self.server.replies else None
        time.sleep(self.server.pause)
        with self.server.lock:
            self.server.running -= 1
        status, headers, data = reply if reply else (200, {}, {
            "choices": [{"message": {"content": body["messages"][-1]["content"].upper()}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        if status == "drop":
            self.connection.close()
            return
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def client(server: Server, **options) -> EndpointChat:
    chat = EndpointChat(server.url, "some-model", **options)
    chat.slept = []
    chat._sleep = chat.slept.append
    return chat


def test_answers_come_back_in_order_with_usage_and_bounded_parallelism(server):
    server.pause = 0.05
    answers = client(server, parallel=3).complete(PROMPTS, max_new_tokens=9, temperature=0.5, top_p=0.9, seed=40)
    assert [answer.text for answer in answers] == [f"QUESTION {number}" for number in range(6)]
    assert {(answer.num_prompt_tokens, answer.num_tokens, answer.finish) for answer in answers} == {(7, 3, "stop")}
    assert all(answer.seconds >= 0.05 for answer in answers)
    assert server.most == 3
    path, headers, _ = server.seen[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    bodies = {body["messages"][-1]["content"]: body for _, _, body in server.seen}
    assert [bodies[f"question {number}"]["seed"] for number in range(6)] == list(range(40, 46))
    assert {(b["model"], b["max_tokens"], b["temperature"], b["top_p"]) for b in bodies.values()} == {
        ("some-model", 9, 0.5, 0.9)}


def test_length_is_reported_as_length(server):
    server.replies = [(200, {}, {"choices": [{"message": {"content": "cut"}, "finish_reason": "length"}]})]
    answer = client(server).complete(PROMPTS[:1], max_new_tokens=1)[0]
    assert (answer.text, answer.finish, answer.num_tokens) == ("cut", "length", 0)


def test_passing_troubles_are_retried_with_growing_pauses_and_retry_after_is_obeyed(server):
    server.replies = [(500, {}, {}), (429, {"Retry-After": "7"}, {}), ("drop", {}, {}), (200, {}, b"<html>")]
    chat = client(server)
    assert chat.complete(PROMPTS[:1], max_new_tokens=5)[0].text == "QUESTION 0"
    first, asked, third, fourth = chat.slept
    assert 1 <= first <= 1.25 and asked == 7 and 4 <= third <= 5 and 8 <= fourth <= 10


def test_a_long_retry_after_is_cut_to_a_minute(server):
    server.replies = [(503, {"Retry-After": "86400"}, {})]
    chat = client(server)
    chat.complete(PROMPTS[:1], max_new_tokens=5)
    assert chat.slept == [60.0]


def test_what_keeps_failing_ends_in_one_sentence(server):
    server.replies = [(503, {}, {"error": {"message": "overloaded"}})] * 3
    with pytest.raises(ModelError, match=r"failed 3 times.*HTTP 503 overloaded"):
        client(server, retries=2).complete(PROMPTS[:1], max_new_tokens=5)
    assert len(server.seen) == 3


def test_a_refusal_is_not_retried_and_the_key_never_shows(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-value")
    server.replies = [(401, {}, {"error": {"message": "bad key sk-secret-value"}})]
    with pytest.raises(ModelError, match=r"HTTP 401 bad key \[key\]") as error:
        client(server, api_key_env="SOME_KEY").complete(PROMPTS[:1], max_new_tokens=5)
    assert "sk-secret" not in str(error.value) and len(server.seen) == 1
    assert server.seen[0][1]["Authorization"] == "Bearer sk-secret-value"


def test_a_missing_key_is_told_before_anything_is_sent(server, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ModelError, match="environment variable NO_KEY is not set"):
        client(server, api_key_env="NO_KEY").complete(PROMPTS, max_new_tokens=5)
    assert server.seen == []


def test_a_redirect_is_refused_so_that_the_key_stays_where_it_was_meant_to_go(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-value")
    other = Server()
    server.replies = [(307, {"Location": f"{other.url}/chat/completions"}, {})]
    with pytest.raises(ModelError, match="HTTP 307"):
        client(server, api_key_env="SOME_KEY").complete(PROMPTS[:1], max_new_tokens=5)
    assert other.seen == []
    other.shutdown()
    other.server_close()


def test_the_newer_name_of_the_limit_is_learned_from_the_refusal(server):
    server.replies = [(400, {}, {"error": {"message": "use 'max_completion_tokens' instead"}})]
    chat = client(server, parallel=1)
    assert len(chat.complete(PROMPTS, max_new_tokens=5)) == 6
    assert [("max_tokens" in body, "max_completion_tokens" in body) for _, _, body in server.seen] == [
        (True, False)] + [(False, True)] * 6


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": None}]}, []])
def test_a_reply_without_a_message_is_an_error(server, reply):
    server.replies = [(200, {}, reply)]
    with pytest.raises(ModelError, match="without a message"):
        client(server).complete(PROMPTS[:1], max_new_tokens=5)


def test_silence_ends_at_the_timeout(server):
    server.pause = 1.0
    with pytest.raises(ModelError, match=r"no answer within 0\.2 s"):
        client(server, retries=1, timeout_s=0.2).complete(PROMPTS[:1], max_new_tokens=5)


def test_nobody_listening_is_one_sentence():
    chat = EndpointChat("http://127.0.0.1:9", "m", retries=0)
    with pytest.raises(ModelError, match="cannot be reached"):
        chat.complete(PROMPTS[:1], max_new_tokens=5)


@pytest.mark.parametrize(("url", "said"), [
    ("localhost:8000", "not an http"), ("ftp://x/v1", "not an http"), ("https://me:pw@x/v1", "holds a password")])
def test_a_bad_address_is_refused(url, said):
    with pytest.raises(ModelError, match=said):
        EndpointChat(url, "m")
