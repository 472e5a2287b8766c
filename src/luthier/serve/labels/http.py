"""The routes of a release with labels: /v1/classify, /v1/tag, /v1/embeddings, and what every server has."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from luthier.errors import UsageError
from luthier.serve import chat, errors
from luthier.serve.embeddings import encoded
from luthier.serve.errors import ApiError
from luthier.serve.http import CommonRoutes, application, json_body
from luthier.serve.labels.predictor import Asked
from luthier.serve.labels.schema import ClassifyRequest, TagRequest, as_list
from luthier.serve.labels.service import LabelService, new_id
from luthier.serve.schema import EmbeddingRequest, useful
from luthier.serve.stream import unless_gone

FIELDS = 20
"""Form fields beside the files of one upload."""


def build_labels(service: LabelService, *, key: str | None) -> FastAPI:
    """The application over a service; `key` None leaves the door open (loopback hosts only)."""
    routes = LabelRoutes(service)
    spec = service.spec
    most = spec.max_body_bytes
    if service.task.type == "image":
        most = max(most, spec.labels.max_image_bytes)
    app = application(service, routes, key=key, pages=chat.routes(chat.LABEL_FILES) if spec.chat_page else [],
                      max_body_bytes=most)
    app.add_api_route("/v1/classify", routes.classify, methods=["POST"])
    app.add_api_route("/v1/tag", routes.tag, methods=["POST"])
    app.add_api_route("/v1/embeddings", routes.embeddings, methods=["POST"])
    return app


class LabelRoutes(CommonRoutes):
    def __init__(self, service: LabelService):
        self.service: LabelService = service

    def _cards(self) -> dict[str, dict[str, Any]]:
        service = self.service
        task, record, model = service.task, service.record, service.predictor.model
        more: dict[str, Any] = {"language": task.language} if task.type != "image" else {}
        if task.type == "embed":
            more["dimensions"] = model.module.backbone.width
        else:
            labels = list(service.predictor.labels)
            more["labels"] = sorted({label[2:] for label in labels if label != "O"}) if task.type == "tag" else labels
        if task.type in ("classify", "image"):
            parts = {name: list(names) for name, names in service.predictor.parts.items()}
            more |= {"parts": parts} if parts else {}
            more |= {"multi_label": task.multi_label, "abstain": service.predictor.abstain,
                     "thresholds": service.predictor.thresholds}
        kind = "embedding" if task.type == "embed" else task.type
        return {record.name: self._card(record.name, model=record.choice, default=True, type=kind, **more)}

    async def classify(self, request: Request) -> Response:
        return await self._counted(request, self._classify)

    async def tag(self, request: Request) -> Response:
        return await self._counted(request, self._tag)

    async def embeddings(self, request: Request) -> Response:
        return await self._counted(request, self._embed)

    async def _counted(self, request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
        status, model = 500, self.service.record.name
        try:
            self._must_be_ready()
            with self.service.admission.enter():
                response = await handle(request)
            status = response.status_code
            return response
        except ApiError as error:
            status = error.status
            model = "" if error.code == "model_not_found" else model
            raise
        finally:
            self.service.metrics.requests.labels(request.url.path, model, str(status)).inc()

    async def _classify(self, request: Request) -> Response:
        service, began = self.service, time.monotonic()
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        questions: Sequence[str | bytes]
        if media == "multipart/form-data":
            body, questions = await _upload(request, service)
        else:
            body = await json_body(request, ClassifyRequest, screened=useful)
            if body.image is not None and body.input is not None:
                raise ApiError(400, "Send either `input` or `image`.", param="image", code="invalid_value")
            questions = as_list(body.input, "input") if body.image is None and service.task.type != "image" else [
                _decoded(text, at) for at, text in enumerate(as_list(body.image, "image"))]
        service.check(body.model, "/v1/classify", len(questions))
        texts = [question for question in questions if isinstance(question, str)]
        asked = await service.read_texts(texts) if texts else await service.read_images(
            [question for question in questions if isinstance(question, bytes)])
        if body.part is not None:
            if body.explain is not None:
                raise ApiError(400, "An explanation is among all labels; send either `explain` or `part`.",
                               param="explain", code="invalid_value")
            try:
                asked = service.predictor.named(asked, body.part)
            except UsageError as error:
                raise ApiError(400, f"{error}.", param="part", code="invalid_value") from None
        return await unless_gone(request, self._decided(body, asked, questions, began))

    async def _decided(self, body: ClassifyRequest, asked: Sequence[Asked], questions: Sequence[str | bytes],
                       began: float) -> Response:
        service, id = self.service, new_id("cls")
        predictor, wanted = service.predictor, body.explain
        if wanted is not None and wanted.label is not None and wanted.label not in predictor.labels:
            raise ApiError(400, f"There is no label '{wanted.label[:100]}'.", param="explain.label",
                           code="invalid_value")
        logits = await service.logits(asked)
        results = [{"index": at, "id": f"{id}-{at}",
                    **predictor.decide(row, top_k=body.top_k, everything=body.probabilities, part=body.part or ""),
                    **({"truncated": one.truncated} if one.text else {})}
                   for at, (row, one) in enumerate(zip(logits, asked))]
        if wanted is not None:
            labels = [wanted.label or result.get("best_guess") or predictor.labels[int(row.argmax())]
                      for result, row in zip(results, logits)]
            told = await service.explain(asked, labels, wanted)
            for result, explanation in zip(results, told):
                result["explanation"] = explanation
        tokens = sum(one.row.size for one in asked) if asked[0].text else 0
        keep = ("id", "label", "labels", "probability", "abstained")
        service.account(id, began, questions, tokens,
                        [{name: row[name] for name in keep if name in row} for row in results])
        return JSONResponse(self._head(id, "classification", tokens) | {"data": results})

    async def _tag(self, request: Request) -> Response:
        service, began = self.service, time.monotonic()
        body = await json_body(request, TagRequest, screened=useful)
        texts = as_list(body.input, "input")
        service.check(body.model, "/v1/tag", len(texts))
        asked = await service.read_texts(texts)
        return await unless_gone(request, self._tagged(asked, texts, began))

    async def _tagged(self, asked: Sequence[Asked], texts: Sequence[str], began: float) -> Response:
        service, id = self.service, new_id("tag")
        logits = await service.logits(asked)
        results = [{"index": at, "id": f"{id}-{at}", "spans": service.predictor.spans(one, row),
                    "truncated": one.truncated} for at, (one, row) in enumerate(zip(asked, logits))]
        tokens = sum(one.row.size for one in asked)
        service.account(id, began, texts, tokens, [
            {"id": row["id"], "spans": [{name: span[name] for name in ("start", "end", "label", "probability")}
                                        for span in row["spans"]]} for row in results])
        return JSONResponse(self._head(id, "tagging", tokens) | {"data": results})

    async def _embed(self, request: Request) -> Response:
        service, began, id = self.service, time.monotonic(), new_id("emb")
        body = await json_body(request, EmbeddingRequest)
        texts = body.texts()
        service.check(body.model, "/v1/embeddings", len(texts))
        width = service.predictor.model.module.backbone.width
        if body.dimensions not in (None, width):
            raise errors.unsupported("dimensions", f"this model's vectors have {width}")
        asked = await service.read_texts(texts)
        long = next((at for at, one in enumerate(asked) if one.truncated), None)
        if long is not None:
            raise ApiError(400, f"input[{long}] is longer than the {asked[long].row.size} tokens that the model reads. "
                           "Split the text.", param="input", code="context_length_exceeded")

        async def answer() -> Response:
            vectors = await service.logits(asked)
            tokens = sum(one.row.size for one in asked)
            asked_for = texts[0] if len(texts) == 1 else "\0".join(texts).encode("utf-8", "surrogatepass")
            service.account(id, began, [asked_for], tokens, [{"id": id, "inputs": len(texts)}])
            data = [{"object": "embedding", "index": at, "embedding": encoded(vector, body.encoding_format or "float")}
                    for at, vector in enumerate(vectors)]
            return JSONResponse({"object": "list", "model": body.model, "data": data,
                                 "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                                 "luthier": self._lineage()})

        return await unless_gone(request, answer())

    def _lineage(self) -> dict[str, Any]:
        record = self.service.record
        return {"release": record.name, "version": record.version, "model": record.choice}

    def _head(self, id: str, object: str, tokens: int) -> dict[str, Any]:
        found = {"id": id, "object": object, "created": int(time.time()), "model": self.service.record.name,
                 "luthier": self._lineage()}
        return {**found, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if tokens else found


def _decoded(text: str, at: int) -> bytes:
    """The bytes of an image in base64, with or without `data:image/png;base64,` in front."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"image[{at}] is not base64.", param="image", code="invalid_image") from None


async def _upload(request: Request, service: LabelService) -> tuple[ClassifyRequest, list[bytes]]:
    """Files and settings of a form. A web page elsewhere could send a form unasked, so its origin is looked at."""
    origin = request.headers.get("origin")
    own = origin is None or urlsplit(origin).netloc == request.headers.get("host") \
        or origin in service.spec.cors_origins
    if not own:
        raise ApiError(403, "Uploads from pages of other origins are not accepted; add the origin to "
                       "serve.cors_origins.", code="foreign_origin")
    try:
        async with request.form(max_files=service.spec.labels.max_inputs, max_fields=FIELDS) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            images = [await file.read() for file in files]
    except HTTPException as error:  # what Starlette makes of a broken or too large form
        raise ApiError(400, f"The form cannot be read: {error.detail}", code="invalid_form") from None
    if not images:
        raise ApiError(400, "The form holds no file.", param="file", code="missing_required_parameter")
    settings: dict[str, Any] = {}
    for name, value in fields.items():
        if name in ("model", "part"):
            settings[name] = value
            continue
        try:
            settings[name] = json.loads(value)  # numbers, true and false, or {"method": ...}
        except (ValueError, RecursionError):
            raise ApiError(400, f"{name}: '{value[:50]}' is not valid JSON.", param=name,
                           code="invalid_value") from None
    for name in ("input", "image"):
        if name in settings:
            raise ApiError(400, f"Unrecognized form field: {name}", param=name, code="unknown_parameter")
    try:
        return ClassifyRequest.model_validate(settings), images
    except ValidationError as error:
        raise errors.from_validation(error) from None
