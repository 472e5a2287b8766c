"""The page's routes. Behind the same door as `luthier serve`: a key in a header, which no other web page can send."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from luthier.errors import DataError, LuthierError
from luthier.queues import QUEUES
from luthier.review.desk import Desk, Mode, changes, progress
from luthier.review.pages import Pages
from luthier.review.view import view
from luthier.serve import errors
from luthier.serve.chat import UI as SERVE_UI
from luthier.serve.chat import routes as files
from luthier.serve.errors import ApiError
from luthier.serve.guard import LOOPBACK, Guard
from luthier.serve.http import json_body

UI = Path(__file__).with_name("ui")
FILES = {
    "/": (UI / "review.html", "text/html; charset=utf-8"),
    "/ui/review.css": (UI / "review.css", "text/css; charset=utf-8"),
    "/ui/review.js": (UI / "review.js", "text/javascript; charset=utf-8"),
    "/ui/pane.js": (UI / "pane.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": (SERVE_UI / "icon.svg", "image/svg+xml"),
}
MOST = 5000
"""Open items that the page gets at a time; the rest comes when these are done."""
MAX_BODY = 1_000_000


class Decision(BaseModel):
    model_config = ConfigDict(extra="forbid")

    queue: str
    id: str
    verdict: Literal["accept", "edit", "reject"]
    value: Any = None
    by: str = Field(max_length=80)
    mode: Mode = "open"


class Undo(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: str = Field(max_length=80)


def build(desk: Desk, pages: Pages, *, key: str, by: str, queue: str | None, name: str) -> FastAPI:
    """The application. The routes that read or draw run in threads, so that one slow page holds up nobody."""
    app = FastAPI(title="Luthier review", docs_url=None, redoc_url=None, openapi_url=None)
    routes = Routes(desk, pages, by=by, queue=queue, name=name)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(LuthierError, _told)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_api_route("/api/state", routes.state, methods=["GET"])
    app.add_api_route("/api/item", routes.item, methods=["GET"])
    app.add_api_route("/api/image", routes.image, methods=["GET"])
    app.add_api_route("/api/decide", routes.decide, methods=["POST"])
    app.add_api_route("/api/undo", routes.undo, methods=["POST"])
    page = files({path: (str(file), media) for path, (file, media) in FILES.items()})
    app.router.routes.extend(page)
    app.add_middleware(Guard, key=key, open_paths={*FILES}, max_body_bytes=MAX_BODY,  # type: ignore[arg-type]
                       hosts={*LOOPBACK})
    return app


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _told(request: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, DataError) else 400
    return await _api_error(request, ApiError(status, str(error), code=type(error).__name__))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return await _api_error(request, ApiError(error.status_code, f"There is nothing at {request.url.path[:200]}."
                                              if error.status_code == 404 else str(error.detail)))


class Routes:
    def __init__(self, desk: Desk, pages: Pages, *, by: str, queue: str | None, name: str):
        self.desk, self.pages, self.by, self.queue, self.name = desk, pages, by, queue, name

    def state(self, by: str = "", queue: str = "", mode: Mode = "open") -> JSONResponse:
        """Queues, progress, agreement, and what there is to do in the chosen queue and mode."""
        _known(queue)
        by = by or self.by
        todo = self.desk.todo(queue or None, mode, by)
        return JSONResponse({
            "project": self.name, "by": by, "start_queue": self.queue or "", "queues": progress(self.desk, by),
            "agreement": [one.data() for one in self.desk.agreements()], "changes": changes(self.desk),
            "problems": self.desk.now().problems, "total": len(todo),
            "todo": [[item.queue, item.id] for item in todo[:MOST]]})

    def item(self, queue: str, id: str, mode: Mode = "open") -> JSONResponse:
        return JSONResponse(view(self.desk, self.desk.item(queue, id), mode))

    def image(self, queue: str, id: str) -> Response:
        page = self.pages.page(self.desk.item(queue, id), self.desk.now().artifacts.get("prepare"))
        return Response(page.png, media_type="image/png", headers={"X-Page-Size": f"{page.width:g},{page.height:g}"})

    async def decide(self, request: Request) -> JSONResponse:
        body = await json_body(request, Decision, screened=lambda data: data)
        made = await asyncio.to_thread(self.desk.decide, body.queue, body.id, body.verdict, body.value, by=body.by,
                                       settles=body.mode == "conflicts")
        return JSONResponse({"queue": body.queue, "id": made.id, "verdict": made.verdict, "by": made.by})

    async def undo(self, request: Request) -> JSONResponse:
        body = await json_body(request, Undo, screened=lambda data: data)
        last = await asyncio.to_thread(self.desk.last, body.by)
        if last is None:
            raise ApiError(400, f"{body.by or 'nobody'} has decided nothing yet that could be taken back.")
        await asyncio.to_thread(self.desk.undo, *last, by=body.by)
        return JSONResponse({"queue": last[0], "id": last[1]})


def _known(queue: str) -> None:
    if queue and queue not in QUEUES:
        raise errors.ApiError(400, f"there is no queue '{queue[:100]}'; there are: {', '.join(QUEUES)}")
