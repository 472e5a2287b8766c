"""Answers on the wire: server-sent events, and noticing that nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response

T = TypeVar("T")
KEEP_ALIVE_S = 15.0
STALL_S = 30.0  # a client that reads nothing for so long has left, even if its connection stands


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | Response:
    """The result of `work`, which is cancelled when the client leaves; nobody reads what is returned then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=499)
    finally:
        await _end(task, gone)


async def _gone(receive: Callable[[], Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """Sends events as they come and ends their source, and what `on_end` frees, however the connection ends.

    Comment lines keep proxies from closing the connection while a request waits for its first token.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], *, on_end: Callable[[], None]):
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.on_end = events, on_end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                with contextlib.suppress(TimeoutError):  # the client has stalled: as good as gone
                    sending.result()
        finally:
            await _end(sending, gone)
            with contextlib.suppress(RuntimeError):  # already running its own clean-up
                await self.events.aclose()  # type: ignore[attr-defined]
            self.on_end()

    async def _send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        source = aiter(self.events)
        waiting = asyncio.ensure_future(anext(source, None))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S)
                data = waiting.result() if done else b": keep-alive\n\n"
                if data is None:
                    break
                async with asyncio.timeout(STALL_S):  # not wait_for: Python 3.11's can swallow a cancellation
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                if done:
                    waiting = asyncio.ensure_future(anext(source, None))
        finally:
            await _end(waiting)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
