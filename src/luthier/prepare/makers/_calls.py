"""Asking a model many times, with every reply kept: what was paid for once is never asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.index.tokens import estimate_tokens
from luthier.prepare.makers._kinds import Focus, Kind
from luthier.prepare.makers._replies import Candidate, read_pairs, read_question, read_unanswerable
from luthier.store import Cache
from luthier.types import Message, Passage, digest

if TYPE_CHECKING:
    from luthier.models.base import Chat
    from luthier.progress import Bar

SECONDS = {"local": 0.6, "endpoint": 4.0}
"""One call of a small local model on two cores, and of an endpoint: assumed until measured."""


@dataclass(frozen=True)
class Call:
    """One request for questions about a passage (two for a comparison)."""

    passages: tuple[Passage, ...]
    kinds: tuple[Kind, ...]
    """Of each question asked for."""
    prompt: tuple[Message, ...]
    focus: Focus | None = None
    """The piece of the passage whose question is asked for."""

    def read(self, reply: Reply) -> list[Candidate]:
        if self.focus is not None:
            question = read_question(reply.text)
            return [Candidate(question, self.focus.text, self.focus.text, self.focus.kind, self.focus.text)
                    ] if question else []
        if self.kinds == ("unanswerable",):
            return read_unanswerable(reply.text, 1)
        return read_pairs(reply.text, self.kinds, reply.finish == "stop")


@dataclass(frozen=True)
class Reply:
    """What came back for one prompt."""

    text: str
    finish: str
    tokens: int
    """Of prompt and reply together; estimated where an endpoint does not say."""
    seconds: float
    """Share of the wall time of the request."""


@dataclass
class Asker:
    """Asks one model, from the cache where the same was asked before.

    A local model answers `batch` prompts at a time, an endpoint `parallel` ones, and each reply is on disk before the
    next request: what a kill loses is what was being asked at that moment. At a temperature above 0 a local model is
    asked one prompt at a time, so that a reply does not depend on what else was asked.
    """

    open: Callable[[], Chat]
    identity: str
    """Stands for the model and its settings in the cache's keys."""
    cache: Cache
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    batch: int = 16
    parallel: int = 0
    """Requests at a time to an endpoint; 0 for a local model."""
    calls: int = 0
    """Replies given so far, from the cache or by the model."""
    kept: int = 0
    """Replies that are on disk; more than `calls` when a request failed half way."""
    asked: int = 0
    """Prompts that the model answered in this run."""
    tokens: int = 0
    seconds: float = 0.0
    _chat: Any = field(default=None, repr=False)

    def ask(self, prompts: Sequence[tuple[Message, ...]], bar: Bar | None = None) -> list[Reply]:
        """A reply for every prompt, in order. ModelError keeps what was answered."""
        keys = [self._key(prompt) for prompt in prompts]
        found: dict[str, Reply] = {}
        missing: dict[str, tuple[Message, ...]] = {}
        for key, prompt in zip(keys, prompts):
            stored = self.cache.get(key)
            if stored is None:
                missing[key] = prompt
            else:
                found[key] = Reply(**json.loads(stored))
                self.kept += 1
        if bar is not None:
            bar.advance(len(prompts) - len(missing))
        for key, reply in self._told(missing):
            self.cache.put(key, json.dumps(vars(reply), ensure_ascii=False).encode("utf-8", "surrogatepass"))
            found[key] = reply
            self.asked += 1
            self.kept += 1
            if bar is not None:
                bar.advance(1)
        replies = [found[key] for key in keys]
        self.calls += len(replies)
        self.tokens += sum(reply.tokens for reply in replies)
        self.seconds += sum(reply.seconds for reply in replies)
        if missing:
            self.cache.put(_speed(self.identity), json.dumps({
                "seconds": self.seconds / self.calls, "tokens": self.tokens / self.calls}).encode())
        return replies

    def known(self, prompts: Sequence[tuple[Message, ...]]) -> int:
        """How many of the prompts were answered before."""
        return sum(self.cache.get(self._key(prompt)) is not None for prompt in prompts)

    def _key(self, prompt: tuple[Message, ...]) -> str:
        settings = [self.identity, str(self.max_new_tokens), f"{self.temperature:g} {self.top_p:g}"]
        if self.temperature > 0:
            settings.append(str(self.seed))
        return digest("ask", *settings, *(part for turn in prompt for part in (turn.role, turn.content)), length=40)

    def _told(self, missing: dict[str, tuple[Message, ...]]) -> Iterator[tuple[str, Reply]]:
        if not missing:
            return
        if self._chat is None:
            self._chat = self.open()
        if self.parallel:
            yield from self._endpoint(missing)
            return
        keys, step = [*missing], 1 if self.temperature > 0 else self.batch
        for start in range(0, len(keys), step):
            part = keys[start:start + step]
            yield from zip(part, self._complete([missing[key] for key in part], part[0]))

    def _endpoint(self, missing: dict[str, tuple[Message, ...]]) -> Iterator[tuple[str, Reply]]:
        """Replies as they come; after the first failure nothing new is sent, and what is under way is waited for."""
        failed: BaseException | None = None
        left = iter(missing.items())
        with ThreadPoolExecutor(self.parallel) as pool:
            running: dict[Future[list[Reply]], str] = {}
            while True:
                while failed is None and len(running) < self.parallel and (one := next(left, None)) is not None:
                    running[pool.submit(self._complete, [one[1]], one[0])] = one[0]
                if not running:
                    break
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(job)
                    if (error := job.exception()) is not None:
                        failed = failed or error
                    else:
                        yield key, job.result()[0]
        if failed is not None:
            raise failed

    def _complete(self, prompts: Sequence[tuple[Message, ...]], key: str) -> list[Reply]:
        began = time.monotonic()
        told = self._chat.complete(prompts, max_new_tokens=self.max_new_tokens, temperature=self.temperature,
                                   top_p=self.top_p, seed=int(digest(str(self.seed), key), 16) % 2**31, what="teacher")
        spent = (time.monotonic() - began) / len(prompts) / max(1, self.parallel)
        return [Reply(one.text, one.finish,
                      one.num_prompt_tokens + one.num_tokens or estimate_tokens(one.text) + sum(
                          estimate_tokens(turn.content) for turn in prompt), round(spent, 4))
                for prompt, one in zip(prompts, told)]


def _speed(identity: str) -> str:
    return digest("speed of", identity, length=40)


@dataclass(frozen=True)
class Forecast:
    """What asking is going to take."""

    teacher: str
    passages: int
    calls: int
    tokens: int
    seconds: float
    measured: bool
    """The speed is this teacher's own on this machine; else it is assumed."""
    price: float | None = None

    def text(self) -> str:
        minutes = self.seconds / 60
        time_ = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{max(1, round(self.seconds))} seconds"
        cost = f", {self.price:.2f} at the given price" if self.price is not None else ""
        return (f"synthesize asks {self.teacher} about {self.passages} passages: up to {self.calls} calls, about "
                f"{self.tokens / 1000:.0f} thousand tokens{cost}, about {time_} "
                f"({'at its measured speed' if self.measured else 'speed assumed, may be off by a factor of 5'})")


def speed_of(cache: Cache, identity: str, kind: str) -> tuple[float, bool]:
    """(seconds for one call, whether it was measured)."""
    stored = cache.get(_speed(identity))
    return (json.loads(stored)["seconds"], True) if stored else (SECONDS[kind], False)


def fingerprint(source: str, root: Path) -> str:
    """Stands for a local model's weights."""
    from luthier.models.sources import resolve

    return resolve(source, root=root).fingerprint


def local_chat(source: str, root: Path) -> Chat:
    from luthier.models.generate import LocalChat

    return LocalChat.load(source, root=root)
