"""A release with labels being served: loading, admission, batching, answers and their log."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from prometheus_client import Gauge

from luthier.errors import DataError, LuthierError, ModelError, UsageError
from luthier.release.folder import ReleaseRecord
from luthier.serve import errors
from luthier.serve.answers import AnswerLog
from luthier.serve.errors import ApiError
from luthier.serve.labels.batcher import Batcher, Failed
from luthier.serve.labels.explain import Explainer
from luthier.serve.labels.predictor import Asked, Predictor
from luthier.serve.labels.schema import Explain
from luthier.serve.metrics import Metrics
from luthier.serve.service import Admission

if TYPE_CHECKING:
    from luthier.serve.base import Serve

log = logging.getLogger("luthier.serve")
T = TypeVar("T")
ROUTES = {"classify": "/v1/classify", "image": "/v1/classify", "tag": "/v1/tag", "embed": "/v1/embeddings"}


class LabelService:
    """Lives in one event loop; the model computes on the batcher's thread."""

    def __init__(self, record: ReleaseRecord, spec: Serve, *, state: Path):
        if spec.systems is not None:
            raise UsageError(f"serve.systems is for assistants; release {record.label} offers one model, "
                             f"'{record.name}': remove the setting")
        self.record, self.spec, self.task = record, spec, record.task
        self.predictor: Predictor = None  # type: ignore[assignment]
        self.explainer: Explainer = None  # type: ignore[assignment]
        self.batcher = Batcher(lambda rows: self.predictor.logits(rows), rows=spec.labels.batch_rows,
                               wait_s=spec.labels.wait_ms / 1000, start=self._set_threads)
        self.admission = Admission(spec.labels.batch_rows + spec.max_queue)
        self.metrics = Metrics(lambda: self.batcher.running, lambda: self.batcher.waiting)
        for name, about, value in (("batches", "Batches computed", lambda: self.batcher.batches),
                                   ("rows", "Rows computed", lambda: self.batcher.computed)):
            Gauge(f"luthier_label_{name}", about, registry=self.metrics.registry).set_function(value)
        self.answers = AnswerLog(state / "answers.jsonl", rows=spec.answer_log, questions=spec.log_questions)
        self.ready = False
        self.failure: LuthierError | None = None
        self.news: dict[str, Any] | None = None
        """Another release that went live but could not be loaded: wanted, error, at."""
        self.on_failure: Callable[[], Any] = lambda: None

    @property
    def models(self) -> list[str]:
        return [self.record.name]

    def _set_threads(self) -> None:
        if self.spec.labels.threads is not None:
            import torch

            torch.set_num_threads(self.spec.labels.threads)  # counts for the thread that calls it

    # Loading

    async def load(self) -> None:
        """Verify the release and bring the model into memory; a failure is kept and told to `on_failure`."""
        try:
            await asyncio.to_thread(self._load)
            self.batcher.open()
            self.ready = True
        except LuthierError as error:
            self.failure = error
            self.on_failure()
        except Exception as error:  # a damaged model raises anything; whatever it is, the server must not look alive
            log.exception("loading failed")
            self.failure = ModelError(f"release {self.record.label} cannot be loaded: {error}")
            self.on_failure()

    def _load(self) -> None:
        self.record.verify()
        settings = self.spec.labels
        self.predictor = Predictor.open(self.record, runtime=settings.runtime, threads=settings.threads)
        self.explainer = Explainer(self.predictor)
        if self.task.type != "image":
            self.predictor.logits([self.predictor.texts(["warm up"])[0].row])

    def close(self) -> None:
        """Stop and let go of the model: FastAPI and idle connections may hold the service itself for longer."""
        self.batcher.close()
        self.predictor = self.explainer = None  # type: ignore[assignment]

    # Asking

    def check(self, model: str | None, route: str, num_inputs: int) -> None:
        """ApiError for another model, a route that this release does not answer, or too many inputs."""
        if model is not None and model != self.record.name:
            raise errors.unknown_model(model, self.models)
        right = ROUTES[self.task.type]
        if right != route:
            raise ApiError(400, f"'{self.record.name}' is of the task '{self.task.type}'; ask it at {right}.",
                           param="model", code="wrong_endpoint")
        if num_inputs > self.spec.labels.max_inputs:
            raise ApiError(400, f"There are {num_inputs} inputs; at most {self.spec.labels.max_inputs} are possible in "
                           "one request.", param="input", code="invalid_value")

    async def read_texts(self, texts: Sequence[str]) -> list[Asked]:
        if self.task.type == "image":
            raise ApiError(400, f"'{self.record.name}' reads images; send `image` (base64) or multipart/form-data.",
                           param="input", code="unsupported_content")
        try:
            return await asyncio.to_thread(self.predictor.texts, texts)
        except DataError as error:
            raise ApiError(400, f"{error}.", param="input", code="invalid_value") from None

    async def read_images(self, images: Sequence[bytes]) -> list[Asked]:
        if self.task.type != "image":
            raise ApiError(400, f"'{self.record.name}' reads texts; send `input`.", param="image",
                           code="unsupported_content")

        def read() -> list[Asked]:
            return [self.predictor.image(data, most_pixels=self.spec.labels.max_image_pixels,
                                         name=f"image[{at}]") for at, data in enumerate(images)]

        try:
            return await asyncio.to_thread(read)
        except DataError as error:
            raise ApiError(400, f"{error}.", param="image", code="invalid_image") from None

    async def logits(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        """The rows' logits, computed together with those of other requests."""
        return await self._in_time(self.batcher.rows([one.row for one in asked]))

    async def explain(self, asked: Sequence[Asked], labels: Sequence[str], wanted: Explain) -> list[dict[str, Any]]:
        """One explanation an input, of the label named for it."""
        if len(asked) > self.spec.labels.max_explained:
            raise ApiError(400, f"Explanations of {len(asked)} inputs were asked for; at most "
                           f"{self.spec.labels.max_explained} are possible in one request.", param="explain",
                           code="invalid_value")
        if len(self.predictor.labels) < 2 and not self.task.multi_label:
            raise errors.unsupported("explain", "there is one label only, so nothing speaks for or against it")
        found = []
        for one, label in zip(asked, labels):  # one call an input: other requests are answered in between
            found.append(await self._in_time(self.batcher.call(
                lambda one=one, label=label: self.explainer.explain(one, label, wanted.method, wanted.top))))
        return found

    async def _in_time(self, work: Awaitable[T]) -> T:
        limit = self.spec.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await work
        except TimeoutError:
            raise ApiError(504, f"The answer took longer than {limit:g} s; send fewer inputs or try again.",
                           type="server_error", code="timeout") from None
        except Failed as error:
            raise errors.failed(f"{error}"[:1].upper() + f"{error}"[1:] + ".") from None

    def account(self, id: str, began: float, questions: Sequence[str | bytes], tokens: int,
                told: Sequence[dict[str, Any]]) -> None:
        """Count and log: one row for each input, never the input itself unless log_questions says so."""
        seconds = time.monotonic() - began
        name = self.record.name
        self.metrics.seconds.labels(name).observe(seconds)
        self.metrics.prompt_tokens.labels(name).inc(tokens)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for row, question in zip(told, questions):
            self.answers.add(question=question, at=at, release=self.record.label, model=name,
                             system=self.record.choice, request=id, seconds=round(seconds, 3), **row)


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"

