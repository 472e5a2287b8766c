"""`luthier review`: a local page on which a person decides what the stages are unsure of."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from luthier.errors import need
from luthier.spec import Spec

if TYPE_CHECKING:
    from fastapi import FastAPI

    from luthier.review.desk import Desk

HOST, KEY_FILE = "127.0.0.1", "review.key"


class Review(Spec):
    """The page of `luthier review`. It listens on this machine alone; others reach it through a tunnel of their own."""

    port: int = Field(default=8010, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""
    key_env: str = "LUTHIER_REVIEW_KEY"
    """Environment variable that holds the key of the page. When it is not set, the key in `.luthier/review.key` counts,
    which is made at the first start."""
    page_px: int = Field(default=2000, ge=200, le=8000)
    """Longer side of a drawn page or image (pixels)."""
    page_s: float = Field(default=30.0, gt=0)
    """Longest time for drawing one page (seconds)."""


def open_desk(root: Path, store: Any, *, multi_label: bool = False) -> Desk:
    """Items and decisions of the project in `root`, for use from Python."""
    from luthier.review.desk import Desk

    return Desk(root, store, multi_label=multi_label)


def create_app(desk: Desk, spec: Review | None = None, *, sources: Sequence[str], key: str, by: str = "",
               queue: str | None = None, name: str = "") -> FastAPI:
    """The ASGI application. `sources` as in `ingest.sources`; `by` and `queue` are what the page starts with."""
    need("fastapi", extra="serve")
    from luthier.review.http import build
    from luthier.review.pages import Pages

    spec = spec or Review()
    pages = Pages(desk.root, sources, longest_px=spec.page_px, timeout_s=spec.page_s)
    return build(desk, pages, key=key, by=by, queue=queue, name=name or desk.root.name)


def review(desk: Desk, spec: Review | None = None, *, sources: Sequence[str], by: str = "", queue: str | None = None,
           name: str = "") -> None:
    """Serve the page until Ctrl-C or SIGTERM. ServeError for a port that is taken."""
    uvicorn = need("uvicorn", extra="serve")
    from luthier.review.items import STATE
    from luthier.serve.base import listen, quiet_signals
    from luthier.serve.guard import find_key

    spec = spec or Review()
    with contextlib.closing(listen(HOST, spec.port, "review")) as listener:
        key, _ = find_key(desk.root / STATE, spec.key_env, KEY_FILE)
        app = create_app(desk, spec, sources=sources, key=key, by=by, queue=queue, name=name)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                                               lifespan="off", ws="none", timeout_graceful_shutdown=5))
        url = f"http://{HOST}:{listener.getsockname()[1]}/"
        if sys.stderr.isatty():
            where = f"Open: {url}#key={key}"
        elif os.environ.get(spec.key_env, "").strip():
            where = f"Open: {url}#key=…  (the key is in the environment variable {spec.key_env})"
        else:
            where = f"Open: {url}#key=…  (the key is in {desk.root / STATE / KEY_FILE})"
        print(f"{where}\nCtrl-C stops; every decision is on disk as soon as it is made.", file=sys.stderr, flush=True)
        with quiet_signals():
            server.run(sockets=[listener])
