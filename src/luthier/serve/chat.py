"""The chat page, and the page of a release with labels: files of our own, served as they are. Nothing is fetched from
elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

UI = Path(__file__).with_name("ui")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/ui/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/ui/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}


LABEL_FILES = {
    "/": ("labels.html", "text/html; charset=utf-8"),
    "/ui/chat.css": FILES["/ui/chat.css"],
    "/ui/labels.css": ("labels.css", "text/css; charset=utf-8"),
    "/ui/labels.js": ("labels.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": FILES["/favicon.ico"],
}
"""The page of a release with labels."""


def routes(files: Mapping[str, tuple[str, str]] = FILES) -> list[Route]:
    """One route a file; the paths are the only ones that need no key (beside /healthz)."""
    return [_route(path, (UI / name).read_bytes(), media) for path, (name, media) in files.items()]


def _route(path: str, content: bytes, media: str) -> Route:
    async def page(request: Request) -> Response:
        return Response(content, media_type=media)

    return Route(path, page, methods=["GET"])
