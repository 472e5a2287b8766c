"""Hot swap: the server notices that another release went live and changes over between two requests.

The new release is loaded beside the old one while that goes on answering. Then new requests go to the new one, answers
that are under way (streams too) end where they began, and the old one is closed and freed when its last is done. A
release that cannot be loaded changes nothing but what `/v1/models` and the log tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError
from luthier.release.folder import live_release

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("luthier.serve")
Message = MutableMapping[str, Any]
RETRY_S = 300.0
"""Seconds before a release that could not be loaded is tried again (memory may be free by then)."""
DRAIN_S = 0.05


class _Held:
    """A release in memory, with the number of its requests under way."""

    def __init__(self, app: FastAPI):
        self.app, self.open = app, 0

    @property
    def service(self) -> Any:
        return self.app.state.service

    @property
    def folder(self) -> Path:
        return self.service.record.folder

    async def close(self) -> None:
        await asyncio.to_thread(self.service.close)


class Following:
    """An ASGI application that hands each request to the application of the release that is live."""

    def __init__(self, first: FastAPI, *, open_app: Callable[[Path], FastAPI], every_s: float):
        """`first` serves a live release from `<releases>/<name>/<version>`; `open_app` makes the application of another
        version, whose models load when its service is told to; `every_s`: seconds between looks."""
        self.open_app, self.every_s = open_app, every_s
        self._current = _Held(first)
        self._old: _Held | None = None
        self._releases = self._current.folder.parent
        self._failed: tuple[Path, float] | None = None
        """A release that could not be loaded, and when to try again."""

    @property
    def state(self) -> SimpleNamespace:
        """As FastAPI's: the service that answers new requests now."""
        return SimpleNamespace(service=self._current.service)

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]],
                       send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await self._live_and_die(receive, send)
            return
        held = self._current
        held.open += 1
        try:
            await held.app(scope, receive, send)
        finally:
            held.open -= 1

    async def _live_and_die(self, receive: Callable[[], Awaitable[Message]],
                            send: Callable[[Message], Awaitable[None]]) -> None:
        await receive()
        loading = asyncio.create_task(self._current.service.load())
        following = asyncio.create_task(self._follow(loading))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await loading
        for held in (self._old, self._current):
            if held is not None:
                await held.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _follow(self, loading: asyncio.Task[None]) -> None:
        await loading
        while True:
            await asyncio.sleep(self.every_s)
            try:
                live = await self._live()
                if live == self._current.folder:
                    self._current.service.news = self._failed = None
                elif self._failed is None or self._failed[0] != live or time.monotonic() >= self._failed[1]:
                    await self._change_to(live)
            except Exception as error:  # whatever it is: the release that runs goes on running
                self._tell(error, None)

    async def _live(self) -> Path:
        return await asyncio.to_thread(live_release, self._releases.parent, self._releases.name)

    async def _change_to(self, folder: Path) -> None:
        try:
            fresh = await self._load(folder)
        except Exception as error:  # out of memory, damaged files, settings that do not fit: the old one stays
            self._failed = folder, time.monotonic() + RETRY_S
            self._tell(error, folder)
            gc.collect()
            return
        self._old, self._current, self._failed = self._current, fresh, None
        log.warning("%s answers now, in place of %s", fresh.service.record.label, self._old.service.record.label)
        await self._drain()
        await self._old.close()
        self._old = None
        del fresh
        gc.collect()  # modules hold themselves in circles

    async def _load(self, folder: Path) -> _Held:
        held = _Held(await asyncio.to_thread(self.open_app, folder))
        held.service.answers = self._current.service.answers  # one writer for the one log file
        await held.service.load()
        if held.service.failure is not None:
            with contextlib.suppress(Exception):
                await held.close()
            raise held.service.failure
        return held

    async def _drain(self) -> None:
        """Until the old release has no request left. A rollback meanwhile lets the old one take over again at once."""
        assert self._old is not None
        looked = time.monotonic()
        while self._old.open:
            await asyncio.sleep(DRAIN_S)
            if time.monotonic() - looked >= self.every_s:
                looked = time.monotonic()
                with contextlib.suppress(LuthierError):
                    if await self._live() == self._old.folder:
                        self._old, self._current = self._current, self._old

    def _tell(self, error: Exception, folder: Path | None) -> None:
        wanted = "the live release" if folder is None else f"release {folder.parent.name}/{folder.name}"
        said = str(error) if isinstance(error, LuthierError) else f"{type(error).__name__}: {error}"
        service = self._current.service
        news = {"wanted": None if folder is None else f"{folder.parent.name}/{folder.name}", "error": said}
        if service.news is None or {**service.news, "at": None} != {**news, "at": None}:
            log.error("%s went live but cannot be served, %s goes on: %s", wanted, service.record.label, said)
            service.news = {**news, "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
