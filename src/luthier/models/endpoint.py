"""Prompts answered by any OpenAI-compatible endpoint that the user names. Only the standard library is needed."""

from __future__ import annotations

import http.client
import json
import os
import random
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from luthier.errors import ModelError
from luthier.models.base import Completion
from luthier.progress import Progress, Silent
from luthier.types import Message

RETRY = {408, 409, 425, 429, 500, 502, 503, 504}
MAX_WAIT_S = 60.0
MAX_BYTES = 32_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class EndpointChat:
    """Answers prompts over HTTP: OpenAI itself, vLLM, llama.cpp, Ollama, or another Luthier.

    Sends documents' text to the address in `base_url` and nowhere else. The key is read from the environment
    variable that `api_key_env` names, never from a file, and is never shown.
    """

    def __init__(self, base_url: str, model: str, api_key_env: str | None = None, *, timeout_s: float = 120.0,
                 retries: int = 4, parallel: int = 4):
        """`timeout_s` bounds one attempt; a failed attempt is repeated up to `retries` times with growing pauses
        (1, 2, 4… s, or what the endpoint's Retry-After asks, at most 60 s); `parallel` requests run at a time."""
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(f"endpoint '{base_url}' is not an http(s) address such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ModelError("the endpoint's address holds a password; put the key into an environment variable "
                             "and name it as api_key_env")
        if retries < 0 or parallel < 1 or timeout_s <= 0:
            raise ModelError(f"endpoint {base_url}: retries must be at least 0, parallel at least 1 and timeout_s "
                             f"above 0 (found {retries}, {parallel}, {timeout_s})")
        self.url, self.name, self.api_key_env = base_url.rstrip("/") + "/chat/completions", model, api_key_env
        self.timeout_s, self.retries, self.parallel = timeout_s, retries, parallel
        self._limit_field = "max_tokens"
        self._open = urllib.request.build_opener(_NoRedirect()).open
        self._sleep = time.sleep

    def complete(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, temperature: float = 0.0,
                 top_p: float = 1.0, seed: int = 0, progress: Progress = Silent(),
                 what: str = "generate") -> list[Completion]:
        """See `Chat.complete`. The first request that keeps failing ends the call with a ModelError."""
        key = self._key()
        answers: list[Completion] = []
        with ThreadPoolExecutor(self.parallel) as pool, progress.track(what, len(prompts), unit="answers") as bar:
            jobs = [pool.submit(self._one, prompt, key, max_new_tokens, temperature, top_p, seed + number)
                    for number, prompt in enumerate(prompts)]
            try:
                for job in jobs:
                    answers.append(job.result())
                    bar.advance(1)
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise
        return answers

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ModelError(f"endpoint {self.url}: the environment variable {self.api_key_env} is not set; "
                             f"set it to the endpoint's key")
        return key

    def _one(self, prompt: Sequence[Message], key: str | None, max_new_tokens: int, temperature: float, top_p: float,
             seed: int) -> Completion:
        body: dict[str, Any] = {
            "model": self.name, "temperature": temperature, "top_p": top_p, "seed": seed, "n": 1, "stream": False,
            "messages": [{"role": message.role, "content": message.content} for message in prompt],
        }
        began = time.monotonic()
        reply = self._post(body, key, max_new_tokens)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] or ""
            usage = reply.get("usage") or {}
            return Completion(
                text=str(text), num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
                num_tokens=int(usage.get("completion_tokens") or 0),
                finish="length" if choice.get("finish_reason") == "length" else "stop",
                seconds=time.monotonic() - began)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            shown = json.dumps(reply)[:200]
            raise ModelError(f"endpoint {self.url} answered without a message: {shown}") from None

    def _post(self, body: dict[str, Any], key: str | None, max_new_tokens: int) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "luthier"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        problem = ""
        for attempt in range(self.retries + 1):
            field = self._limit_field
            data = json.dumps({**body, field: max_new_tokens}).encode("utf-8", "surrogatepass")
            request = urllib.request.Request(self.url, data=data, headers=headers, method="POST")
            pause = 2.0**attempt * (1 + random.random() / 4)  # jitter keeps parallel requests from returning together
            try:
                with self._open(request, timeout=self.timeout_s) as response:
                    raw = response.read(MAX_BYTES + 1)
                if len(raw) > MAX_BYTES:
                    raise ModelError(f"endpoint {self.url} answered with more than {MAX_BYTES // 1_000_000} MB")
                return json.loads(raw)
            except urllib.error.HTTPError as error:
                problem = _say(error, key)
                if error.code == 400 and field == "max_tokens" and "max_completion_tokens" in problem:
                    self._limit_field = "max_completion_tokens"  # newer OpenAI models know only this name
                    continue
                if error.code not in RETRY:
                    raise ModelError(f"endpoint {self.url} refused model '{self.name}': {problem}") from None
                pause = _retry_after(error, pause)
            except TimeoutError:
                problem = f"no answer within {self.timeout_s:g} s"
            except urllib.error.URLError as error:
                if isinstance(error.reason, ssl.SSLError):
                    raise ModelError(f"endpoint {self.url}: the certificate is not accepted: {error.reason}") from None
                problem = f"cannot be reached: {error.reason}"
            except (http.client.HTTPException, ConnectionError) as error:
                problem = f"the connection broke: {error or type(error).__name__}"
            except ValueError:
                problem = "the answer is not JSON"
            if attempt < self.retries:
                self._sleep(min(pause, MAX_WAIT_S))
        raise ModelError(f"endpoint {self.url} failed {self.retries + 1} times; last: {problem}")


def _say(error: urllib.error.HTTPError, key: str | None) -> str:
    """Status and the endpoint's own message, in one line, without the key should it be echoed."""
    try:
        raw = error.read(20_000).decode("utf-8", "replace")
    except OSError:
        raw = ""
    try:
        told = json.loads(raw)["error"]
        text = told["message"] if isinstance(told, dict) else str(told)
    except (ValueError, KeyError, TypeError):
        text = raw
    text = " ".join(str(text).split())[:300]
    return f"HTTP {error.code} {text or error.reason}".replace(key, "[key]") if key else (
        f"HTTP {error.code} {text or error.reason}")


def _retry_after(error: urllib.error.HTTPError, pause: float) -> float:
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return pause
