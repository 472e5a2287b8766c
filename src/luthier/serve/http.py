"""The routes: OpenAI's API, health, metrics and the chat page, as a FastAPI application."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from luthier.serve import chat, errors
from luthier.serve.embeddings import encoded
from luthier.serve.errors import ApiError
from luthier.serve.guard import LOOPBACK, RELEASE_HEADER, Guard, Stamp
from luthier.serve.schema import ChatRequest, CompletionRequest, EmbeddingRequest, screen
from luthier.serve.service import Job, Service
from luthier.serve.stream import EventStream, event, unless_gone

log = logging.getLogger("luthier.serve")
B = TypeVar("B", bound=BaseModel)


def build(service: Service, *, key: str | None) -> FastAPI:
    """The application over a service; `key` None leaves the door open (loopback hosts only)."""
    routes = Routes(service)
    app = application(service, routes, key=key, pages=chat.routes() if service.spec.chat_page else [],
                      max_body_bytes=service.spec.max_body_bytes)
    app.add_api_route("/v1/chat/completions", routes.chat, methods=["POST"])
    app.add_api_route("/v1/completions", routes.complete, methods=["POST"])
    app.add_api_route("/v1/embeddings", routes.embeddings, methods=["POST"])
    return app


def application(service: Any, routes: CommonRoutes, *, key: str | None, pages: list[Route],
                max_body_bytes: int) -> FastAPI:
    """What every server has: the door, errors in one shape, health, metrics, models and pages. The service has spec,
    load() and close()."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load())
        try:
            yield
        finally:
            await loading
            service.close()

    app = FastAPI(title="Luthier", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _crash)
    app.add_api_route("/healthz", routes.health, methods=["GET", "HEAD"])
    app.add_api_route("/metrics", routes.metrics, methods=["GET"])
    app.add_api_route("/v1/models", routes.models, methods=["GET"])
    app.add_api_route("/v1/models/{id}", routes.model, methods=["GET"])
    app.router.routes.extend(pages)
    app.add_middleware(Stamp, label=service.record.label)  # type: ignore[arg-type]
    app.add_middleware(Guard, key=key, open_paths={"/healthz", *(page.path for page in pages)},  # type: ignore[arg-type]
                       max_body_bytes=max_body_bytes,
                       hosts={*LOOPBACK, service.spec.host} if key is None else None)
    if service.spec.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=list(service.spec.cors_origins),
                           allow_methods=["GET", "POST"], allow_headers=["authorization", "content-type"],
                           expose_headers=[RELEASE_HEADER])
    return app


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = {404: f"There is nothing at {request.url.path[:200]}.",
            405: f"{request.method} is not possible at {request.url.path[:200]}."}
    problem = ApiError(error.status_code, said.get(error.status_code, str(error.detail)),
                       headers=error.headers, code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code))
    return await _api_error(request, problem)


async def _crash(request: Request, error: Exception) -> JSONResponse:
    return await _api_error(request, errors.failed())  # Starlette logs the traceback; the client learns nothing


class CommonRoutes(abc.ABC):
    """Health, metrics and models."""

    service: Any
    """Has ready, failure, news, metrics and record."""

    async def health(self) -> JSONResponse:
        if self.service.ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "failed" if self.service.failure else "loading"}, status_code=503)

    async def metrics(self) -> Response:
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    @abc.abstractmethod
    def _cards(self) -> dict[str, dict[str, Any]]:
        """The models by id, as /v1/models tells them."""

    def _card(self, id: str, **luthier: Any) -> dict[str, Any]:
        record, news = self.service.record, self.service.news
        return {"id": id, "object": "model", "created": _timestamp(record.created), "owned_by": "luthier",
                "luthier": {"release": record.name, "version": record.version, **luthier,
                            **({"not_followed": news} if news else {})}}

    def _must_be_ready(self) -> None:
        if not self.service.ready:
            raise errors.loading()

    async def models(self) -> JSONResponse:
        self._must_be_ready()
        return JSONResponse({"object": "list", "data": list(self._cards().values())})

    async def model(self, id: str) -> JSONResponse:
        self._must_be_ready()
        cards = self._cards()
        if id not in cards:
            raise errors.unknown_model(id, [*cards])
        return JSONResponse(cards[id])


class Routes(CommonRoutes):
    def __init__(self, service: Service):
        self.service: Service = service

    def _cards(self) -> dict[str, dict[str, Any]]:
        service, record, card = self.service, self.service.record, self._card
        cards = {id: card(id, model=system, default=id == service.assistant.default, type="chat")
                 for id, system in service.assistant.models.items()}
        if service.embedder is not None:
            encoder = service.embedder.encoder
            id = f"{record.name}:embedding"
            cards[id] = card(id, model=encoder.files.name, default=False, type="embedding",
                             dimensions=encoder.dimension)
        return cards

    async def chat(self, request: Request) -> Response:
        return await self._counted(request, ChatRequest, self._chat)

    async def complete(self, request: Request) -> Response:
        return await self._counted(request, CompletionRequest, self._complete)

    async def embeddings(self, request: Request) -> Response:
        return await self._counted(request, EmbeddingRequest, self._embed)

    async def _counted(self, request: Request, kind: type[B],
                       handle: Callable[[Request, B], Awaitable[Response]]) -> Response:
        route, model, status = request.url.path, "", 500
        try:
            self._must_be_ready()
            body = await json_body(request, kind)
            if body.model in self.service.assistant.models or body.model.endswith(":embedding"):  # type: ignore[attr-defined]
                model = body.model if body.model in self._cards() else ""  # type: ignore[attr-defined]
            response = await handle(request, body)
            status = response.status_code
            return response
        except ApiError as error:
            status = error.status
            raise
        finally:
            self.service.metrics.requests.labels(route, model, str(status)).inc()

    async def _chat(self, request: Request, body: ChatRequest) -> Response:
        shape = ChatShape(self.service)
        return await self._answer(request, body, shape, lambda: self.service.chat_job(body))

    async def _complete(self, request: Request, body: CompletionRequest) -> Response:
        async def make() -> Job:
            return self.service.completion_job(body)

        return await self._answer(request, body, TextShape(self.service), make)

    async def _answer(self, request: Request, body: ChatRequest | CompletionRequest, shape: Shape,
                      make: Callable[[], Awaitable[Job]]) -> Response:
        with contextlib.ExitStack() as house:
            house.enter_context(self.service.admission.enter())
            job = await make()
            if body.stream:
                return EventStream(shape.events(job, body.include_usage), on_end=house.pop_all().close)

            async def finish() -> Response:
                async for _ in self.service.pieces(job):
                    pass
                return JSONResponse(shape.whole(job))

            return await unless_gone(request, finish())

    async def _embed(self, request: Request, body: EmbeddingRequest) -> Response:
        service = self.service
        known = f"{service.record.name}:embedding"
        if service.embedder is None:
            raise ApiError(404, "This release has no encoder, so there is no embedding model.",
                           param="model", code="model_not_found")
        if body.model != known:
            raise errors.unknown_model(body.model, [known])
        dimension = service.embedder.encoder.dimension
        if body.dimensions not in (None, dimension):
            raise errors.unsupported("dimensions", f"this encoder's vectors have {dimension}")
        texts = body.texts()
        if len(texts) > service.spec.max_embedding_inputs:
            raise ApiError(400, f"input holds {len(texts)} texts; at most {service.spec.max_embedding_inputs} are "
                           "possible in one request.", param="input", code="invalid_value")
        with service.embedding_admission.enter():
            vectors, tokens = await service.embed(texts)
        return JSONResponse({
            "object": "list", "model": body.model,
            "data": [{"object": "embedding", "index": at, "embedding": encoded(vector, body.encoding_format or "float")}
                     for at, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        })


class Shape(abc.ABC):
    """How an answer looks on the wire, whole or in pieces."""

    object: str
    chunk: str

    def __init__(self, service: Service):
        self.service = service

    def _head(self, job: Job, object: str) -> dict[str, Any]:
        return {"id": job.id, "object": object, "created": job.created, "model": job.model,
                "system_fingerprint": self.service.record.label}

    def whole(self, job: Job) -> dict[str, Any]:
        return {**self._head(job, self.object), "choices": [self._choice(job)], "usage": job.usage,
                "luthier": self.service.lineage(job)}

    async def events(self, job: Job, include_usage: bool) -> AsyncIterator[bytes]:
        head = self._head(job, self.chunk)
        usage = {"usage": None} if include_usage else {}
        lineage = {"luthier": self.service.lineage(job)}
        try:
            opening = self._opening()
            if opening is not None:
                yield event({**head, "choices": [opening], **usage, **lineage})
            async for piece in self.service.pieces(job):
                if piece.text:
                    yield event({**head, "choices": [self._delta(piece.text)], **usage})
            yield event({**head, "choices": [self._closing(job)], **usage, **lineage})
            if include_usage:
                yield event({**head, "choices": [], "usage": job.usage, **lineage})
            yield b"data: [DONE]\n\n"
        except ApiError as error:  # the status line is long gone: OpenAI's clients raise on this event
            yield event(error.body)

    @abc.abstractmethod
    def _choice(self, job: Job) -> dict[str, Any]: ...

    def _opening(self) -> dict[str, Any] | None:
        return None

    @abc.abstractmethod
    def _delta(self, text: str) -> dict[str, Any]: ...

    @abc.abstractmethod
    def _closing(self, job: Job) -> dict[str, Any]: ...


class ChatShape(Shape):
    object = "chat.completion"
    chunk = "chat.completion.chunk"

    def _choice(self, job: Job) -> dict[str, Any]:
        message = {"role": "assistant", "content": job.text, "refusal": None,
                   "citations": job.prompt.citations(job.text)}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": job.finish}

    def _opening(self) -> dict[str, Any]:
        return {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}

    def _closing(self, job: Job) -> dict[str, Any]:
        return {"index": 0, "delta": {"citations": job.prompt.citations(job.text)}, "logprobs": None,
                "finish_reason": job.finish}


class TextShape(Shape):
    object = chunk = "text_completion"

    def _choice(self, job: Job) -> dict[str, Any]:
        return {"index": 0, "text": job.text, "logprobs": None, "finish_reason": job.finish}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def _closing(self, job: Job) -> dict[str, Any]:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": job.finish}


async def json_body(request: Request, kind: type[B], *, screened: Callable[[Any], dict[str, Any]] = screen) -> B:
    """The request's JSON as a strict model, after `screened` took out what has no effect. Only application/json: a web
    page cannot send that elsewhere unasked."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ApiError(400, "Send the body as application/json.", code="invalid_content_type")
    raw = await request.body()
    try:
        data = json.loads(raw)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which is no text and which no tokenizer takes
        raise ApiError(400, "The body holds half a surrogate pair (\\ud800 to \\udfff), which is not text.",
                       code="invalid_value") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None
    try:
        return kind.model_validate(screened(data))
    except ValidationError as error:
        raise errors.from_validation(error) from None


def _timestamp(created: str) -> int:
    """Seconds since 1970 of an ISO 8601 time in UTC; 0 where a release does not say."""
    with contextlib.suppress(ValueError):
        return int(time.mktime(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone)
    return 0
