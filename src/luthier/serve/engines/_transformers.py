"""What the `transformers` engine does; apart from its settings, which every command reads and which import fast."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from luthier.models.decode import Batcher, Generation
from luthier.models.generate import context_length, decode_answer, encode_prompt, load_module
from luthier.models.pack import packed
from luthier.serve.engines.base import EngineFailed, Piece, Settings, TimedOut, Weights
from luthier.serve.text import TextStream
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.serve.engines.transformers import Transformers

log = logging.getLogger("luthier.serve")


class _Held:
    """A loaded model."""

    def __init__(self, module: Any, tokenizer: Any, weights: Weights, spec: Transformers):
        self.module, self.tokenizer, self.spec = module, tokenizer, spec
        self.stop_ids = frozenset(weights.stop_ids)
        self.context_length = context_length(module)
        self.lock = threading.Lock()  # Hugging Face tokenizers are not safe against use from two threads at a time
        self.reset()

    def reset(self) -> None:
        self.batcher: Batcher = Batcher(self.module, max_rows=self.spec.max_running,
                                        max_cache_tokens=self.spec.max_cache_tokens,
                                        prefill_tokens=self.spec.prefill_tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        with self.lock:
            return decode_answer(self.tokenizer, tokens)


class _Job:
    """A request between the event loop, which reads `pieces`, and the worker thread, which makes them."""

    def __init__(self, held: _Held, generation: Generation, settings: Settings, loop: asyncio.AbstractEventLoop):
        self.held, self.generation, self.loop = held, generation, loop
        self.text = TextStream(held.decode, settings.stop)
        self.deadline = time.monotonic() + settings.timeout_s
        self.pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self.told = 0

    def next_piece(self) -> Piece | None:
        """What the last tick added, None if there is nothing to tell; ends the generation at a stop string."""
        generation = self.generation
        fresh, self.told = generation.tokens[self.told :], len(generation.tokens)
        finish = generation.finish
        if finish == "stop":
            fresh = fresh[:-1]  # the stop token is not text
        text = self.text.push(fresh)
        if self.text.stopped:
            self.held.batcher.cancel(generation)
            return Piece(text, len(generation.tokens), "stop")
        if finish in ("stop", "length"):
            text += self.text.flush()
            if self.text.stopped:
                finish = "stop"
            return Piece(text, len(generation.tokens), finish)
        return Piece(text, len(generation.tokens)) if text else None


class TransformersEngine:
    """See `Engine`. One worker thread owns the models; the event loop talks to it through an inbox."""

    def __init__(self, spec: Transformers):
        self.spec = spec
        self._held: dict[str, _Held] = {}
        self._jobs: dict[int, _Job] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="luthier-engine", daemon=True)

    def load(self, models: Mapping[str, Weights]) -> None:
        for name, weights in models.items():
            dtype = weights.dtype if self.spec.dtype == "release" else self.spec.dtype
            module, tokenizer = load_module(weights.folder, dtype=dtype)
            tokenizer.chat_template = weights.template
            self._held[name] = _Held(module, tokenizer, weights, self.spec)
        self._worker.start()

    def encode(self, name: str, prompt: Sequence[Message] | str) -> list[int]:
        held = self._held[name]
        with held.lock:
            if isinstance(prompt, str):
                return held.tokenizer(prompt)["input_ids"]
            return encode_prompt(held.tokenizer, prompt)

    def context_length(self, name: str) -> int | None:
        return self._held[name].context_length

    @property
    def max_running(self) -> int:
        return self.spec.max_running

    @property
    def num_running(self) -> int:
        return sum(held.batcher.num_running for held in self._held.values())

    @property
    def num_waiting(self) -> int:
        return max(0, len(self._jobs) - self.num_running)

    async def stream(self, name: str, prompt: Sequence[int], settings: Settings) -> AsyncIterator[Piece]:
        with self._wake:
            if self._closing:  # its models are gone
                raise EngineFailed("the server is stopping")
            held = self._held[name]
        job = _Job(held, Generation(
            prompt=prompt, max_new_tokens=settings.max_new_tokens, stop_ids=held.stop_ids,
            temperature=settings.temperature, top_p=settings.top_p, seed=settings.seed,
        ), settings, asyncio.get_running_loop())
        with self._wake:
            if self._closing:
                raise EngineFailed("the server is stopping")
            self._jobs[id(job)] = job
            held.batcher.add(job.generation)
            self._wake.notify()
        try:
            while True:
                piece = await job.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            with self._wake:
                self._jobs.pop(id(job), None)
                held.batcher.cancel(job.generation)  # does nothing to one that has ended
                self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._worker.is_alive():
            self._worker.join(timeout=30)
        self._held.clear()

    # Everything below runs on the worker thread.

    def _work(self) -> None:
        import torch

        if self.spec.threads is not None:
            torch.set_num_threads(self.spec.threads)  # counts for the thread that calls it
        with contextlib.ExitStack() as stack:
            for held in self._held.values():
                stack.enter_context(packed(held.module))
            self._serve()
        self._tell([(job, EngineFailed("the server is stopping")) for job in list(self._jobs.values())])

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not any(held.batcher.busy for held in self._held.values()):
                    self._wake.wait()
                if self._closing:
                    break
                jobs = list(self._jobs.values())
            self._expire(jobs)
            for held in self._held.values():
                if held.batcher.busy:
                    self._tick(held)

    def _expire(self, jobs: Sequence[_Job]) -> None:
        now = time.monotonic()
        late = [job for job in jobs if now > job.deadline and job.generation.finish is None]
        for job in late:
            job.held.batcher.cancel(job.generation)
        self._tell([(job, TimedOut()) for job in late])

    def _tick(self, held: _Held) -> None:
        try:
            changed = held.batcher.tick()
            by_generation = {job.generation: job for job in list(self._jobs.values())}
            jobs = [by_generation[generation] for generation in changed if generation in by_generation]
            pieces = [(job, job.next_piece()) for job in jobs]
        except Exception:  # whatever the model or the allocator raises, the other requests must be told and go on
            log.exception("the engine failed on a batch")
            with self._wake:
                broken = [job for job in self._jobs.values() if job.held is held]
                held.reset()
            self._tell([(job, EngineFailed("the model failed on this request")) for job in broken])
            return
        self._tell([(job, piece) for job, piece in pieces if piece is not None])

    @staticmethod
    def _tell(told: Sequence[tuple[_Job, Piece | Exception]]) -> None:
        """Hand pieces to the event loop: one wake-up a tick, however many requests there are."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        for job, piece in told:
            by_loop.setdefault(job.loop, []).append(partial(job.pieces.put_nowait, piece))
        for loop, calls in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
