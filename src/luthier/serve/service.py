"""What the routes share: the loaded release, admission, prompts, and answers piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError, ModelError
from luthier.release.folder import ReleaseRecord
from luthier.release.gate import System
from luthier.serve import errors
from luthier.serve.answer import Assistant, Prompt
from luthier.serve.answers import AnswerLog
from luthier.serve.engines.base import Engine, EngineFailed, Piece, Settings, TimedOut, Weights
from luthier.serve.metrics import Metrics
from luthier.serve.schema import ChatRequest, CompletionRequest
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.serve.base import Serve

log = logging.getLogger("luthier.serve")


class Admission:
    """Bounds the requests in the house; the next one is told when to come again."""

    def __init__(self, capacity: int):
        self.capacity, self.open, self._typical_s = capacity, 0, 2.0

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        if self.open >= self.capacity:
            raise errors.queue_full(min(60.0, max(1.0, self._typical_s)))
        self.open += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.open -= 1
            self._typical_s = 0.8 * self._typical_s + 0.2 * (time.monotonic() - began)


@dataclass(kw_only=True)
class Job:
    """One request on its way: what was asked, what was decided, what came out."""

    id: str
    model: str
    system: System
    question: str
    prompt: Prompt
    ids: list[int]
    settings: Settings
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.monotonic)
    text: str = ""
    num_tokens: int = 0
    finish: str = "cancelled"

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": len(self.ids), "completion_tokens": self.num_tokens,
                "total_tokens": len(self.ids) + self.num_tokens}


class Service:
    """A release being served. Lives in one event loop; models compute in the engine's own threads."""

    def __init__(self, record: ReleaseRecord, spec: Serve, *, root: Path, state: Path):
        self.record, self.spec, self.root = record, spec, root
        self.engine: Engine = spec.engine.open()
        self.assistant = Assistant(record, None, offered=spec.systems)
        self.admission = Admission(self.engine.max_running + spec.max_queue)
        self.embedding_admission = Admission(1 + spec.max_queue)
        self.metrics = Metrics(lambda: self.engine.num_running, lambda: self.engine.num_waiting)
        self.answers = AnswerLog(state / "answers.jsonl", rows=spec.answer_log, questions=spec.log_questions)
        self.ready = False
        self.failure: LuthierError | None = None
        self.news: dict[str, Any] | None = None
        """Another release that went live but could not be loaded: wanted, error, at."""
        self.on_failure: Callable[[], Any] = lambda: None
        self.retriever: Any = None
        self.embedder: Any = None
        self._encoding = asyncio.Lock()  # one encoder, one tokenizer, one caller at a time

    @property
    def models(self) -> list[str]:
        """Ids that can be asked."""
        return [*self.assistant.models]

    def close(self) -> None:
        """Stop and let go of the models: FastAPI and idle connections may hold the service itself for longer."""
        self.engine.close()
        self.retriever = self.embedder = self.assistant.retriever = None

    # Loading

    async def load(self) -> None:
        """Verify the release and bring everything into memory; a failure is kept and told to `on_failure`."""
        try:
            await asyncio.to_thread(self._load)
            self.ready = True
        except LuthierError as error:
            self.failure = error
            self.on_failure()
        except Exception as error:  # a damaged model raises anything; whatever it is, the server must not look alive
            log.exception("loading failed")
            self.failure = ModelError(f"release {self.record.label} cannot be loaded: {error}")
            self.on_failure()

    def _load(self) -> None:
        from luthier.index.base import open_index

        self.record.verify()
        systems: set[System] = set(self.assistant.models.values())
        if (self.record.folder / "index").is_dir():
            self.retriever = open_index(self.record.folder / "index", root=self.root)
            self.retriever.search(["warm up"], 1)
            if self.retriever.spec.mode != "keywords":
                from luthier.serve.embeddings import Embedder

                self.embedder = Embedder(self.retriever.encoder)
        elif any(self.assistant.retrieves(system) for system in systems):
            raise ModelError(f"release {self.record.label} has no index, but offers retrieval; release it again")
        self.assistant.retriever = self.retriever
        wanted: dict[str, System] = {self.assistant.weights(system): system for system in sorted(systems)}
        self.engine.load({
            name: Weights(folder=self.record.weights(system, root=self.root), template=self.record.template,
                          stop_ids=self.record.stop_ids, dtype=self.record.dtype)
            for name, system in wanted.items()
        })

    # Asking

    def system(self, model: str) -> System:
        found = self.assistant.models.get(model)
        if found is None:
            raise errors.unknown_model(model, [*self.assistant.models])
        return found

    async def chat_job(self, body: ChatRequest) -> Job:
        """Check, retrieve and tokenise; raises ApiError before anything is computed where it can."""
        system = self.system(body.model)
        conversation = body.conversation()
        if self.record.template is None:
            raise errors.ApiError(400, f"The models of '{self.record.name}' continue text and do not chat; use "
                                  "/v1/completions.", param="model", code="model_does_not_chat")
        if self.assistant.retrieves(system):
            async with self._encoding:
                prompt = await asyncio.to_thread(self.assistant.prompt, system, conversation)
        else:
            prompt = self.assistant.prompt(system, conversation)
        return self._job("chatcmpl-", body, system, prompt, prompt.messages, conversation[-1].content)

    def completion_job(self, body: CompletionRequest) -> Job:
        system = self.system(body.model)
        if self.assistant.retrieves(system):
            if body.model != self.record.name:
                raise errors.ApiError(400, f"'{body.model}' answers questions over passages; ask it through "
                                      "/v1/chat/completions.", param="model", code="model_does_not_complete")
            system = "tuned" if system == "tuned_retrieval" else "base"  # the same weights without passages
        text = body.text()
        return self._job("cmpl-", body, system, Prompt(messages=()), text, text)

    def _job(self, prefix: str, body: ChatRequest | CompletionRequest, system: System, prompt: Prompt,
             asked: Sequence[Message] | str, question: str) -> Job:
        weights = self.assistant.weights(system)
        try:
            ids = self.engine.encode(weights, asked)
        except ModelError as error:
            raise errors.ApiError(400, str(error), param="messages", code="invalid_value") from None
        room = self.engine.context_length(weights)
        longest = min(self.spec.max_prompt_tokens or 1 << 40, (room or 1 << 40) - 1)
        if not ids or len(ids) > longest:
            raise errors.ApiError(400, f"The prompt has {len(ids)} tokens (passages and template included); at most "
                                  f"{longest} are possible here.", param="messages", code="context_length_exceeded")
        wanted, most = body.wanted_tokens, self.spec.max_output_tokens
        if wanted is not None and wanted > most:
            raise errors.ApiError(400, f"max_tokens is {wanted}; at most {most} are possible here.",
                                  param="max_tokens", code="invalid_value")
        if wanted is not None and room is not None and len(ids) + wanted > room:
            raise errors.ApiError(400, f"The prompt has {len(ids)} tokens and max_tokens is {wanted}, but the model "
                                  f"holds {room} in all.", param="messages", code="context_length_exceeded")
        limit = min(wanted or most, (room or 1 << 40) - len(ids))
        settings = Settings(
            max_new_tokens=limit, top_p=1.0 if body.top_p is None else body.top_p,
            temperature=self.spec.temperature if body.temperature is None else body.temperature,
            seed=secrets.randbits(62) if body.seed is None else body.seed, stop=body.stops,
            timeout_s=self.spec.request_timeout_s,
        )
        return Job(id=prefix + uuid.uuid4().hex, model=body.model, system=system, question=question, prompt=prompt,
                   ids=ids, settings=settings)

    async def pieces(self, job: Job) -> AsyncIterator[Piece]:
        """The answer as it is made; whatever the end, it is counted and logged."""
        try:
            stream = self.engine.stream(self.assistant.weights(job.system), job.ids, job.settings)
            async with contextlib.aclosing(stream) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if piece.text and not job.text:
                        self.metrics.first.labels(job.model).observe(time.monotonic() - job.began)
                    job.text += piece.text
                    job.num_tokens = piece.num_tokens
                    job.finish = piece.finish or job.finish
                    yield piece
        except TimedOut:
            job.finish = "timeout"
            raise errors.timed_out(self.spec.request_timeout_s) from None
        except EngineFailed as error:
            job.finish = "error"
            raise errors.failed(f"{error}"[:1].upper() + f"{error}"[1:] + ".") from None
        finally:
            self._account(job)

    def _account(self, job: Job) -> None:
        seconds = time.monotonic() - job.began
        self.metrics.prompt_tokens.labels(job.model).inc(len(job.ids))
        self.metrics.output_tokens.labels(job.model).inc(job.num_tokens)
        self.metrics.seconds.labels(job.model).observe(seconds)
        if job.finish == "cancelled":
            self.metrics.cancelled.labels(job.model).inc()
        self.answers.add(
            id=job.id, question=job.question, at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            release=self.record.label, model=job.model, system=job.system,
            passages=[passage.id for passage in job.prompt.passages], finish=job.finish, **job.usage,
            seconds=round(seconds, 3),
        )

    async def embed(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Unit vectors [n, d] and the number of tokens."""
        async with self._encoding:
            return await asyncio.to_thread(self.embedder.embed, texts)

    def lineage(self, job: Job) -> dict[str, Any]:
        """Which release, version and system answered."""
        return {"release": self.record.name, "version": self.record.version, "model": job.system}
