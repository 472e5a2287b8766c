"""Rows of many requests computed together: one worker thread, which takes what has gathered while it was busy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.serve.errors import ApiError

log = logging.getLogger("luthier.serve")


class Failed(Exception):
    """The model failed on this request's batch; the server goes on with the next."""


@dataclass
class _Item:
    """A row, or a call (`row` is then the function), with where its result goes."""

    row: Any
    future: asyncio.Future[Any]
    call: bool = False

    def tell(self, value: Any) -> None:
        def settle() -> None:
            if not self.future.done():
                self.future.set_exception(value) if isinstance(value, Exception) else self.future.set_result(value)

        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self.future.get_loop().call_soon_threadsafe(settle)


class Batcher:
    """`rows` and `call` are awaited in an event loop; the computing happens on the worker, one batch at a time."""

    def __init__(self, compute: Callable[[list[Any]], Sequence[Any]], *, rows: int, wait_s: float,
                 start: Callable[[], None] = lambda: None):
        """`compute` gives one result a row; at most `rows` at once; `start` runs first on the worker."""
        self.compute, self.most, self.wait_s, self._start = compute, rows, wait_s, start
        self.batches = self.computed = self.running = 0
        self._items: deque[_Item] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="luthier-labels", daemon=True)

    @property
    def waiting(self) -> int:
        return len(self._items)

    def open(self) -> None:
        self._worker.start()

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        if self._worker.is_alive():
            self._worker.join(timeout=30)

    async def rows(self, rows: Sequence[Any]) -> list[Any]:
        """The results of the rows, in their order. Cancelling takes the rows out that were not computed yet."""
        return await self._add([(row, False) for row in rows])

    async def call(self, function: Callable[[], Any]) -> Any:
        """What `function` returns on the worker, where nothing else uses the model meanwhile."""
        return (await self._add([(function, True)]))[0]

    async def _add(self, wanted: Sequence[tuple[Any, bool]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        items = [_Item(row, loop.create_future(), call) for row, call in wanted]
        with self._news:
            if self._closing:
                raise Failed("the server is stopping")
            self._items.extend(items)
            self._news.notify()
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            for item in items:
                item.future.cancel()
                if item.future.done() and not item.future.cancelled():
                    item.future.exception()  # a neighbour's failure was raised already

    # The worker's side

    def _work(self) -> None:
        self._start()
        while (batch := self._gather()) is not None:
            self.running = len(batch)
            self._do(batch)
            self.running = 0
        for item in self._items:
            item.tell(Failed("the server is stopping"))

    def _gather(self) -> list[_Item] | None:
        with self._news:
            while not self._items and not self._closing:
                self._news.wait()
            end = time.monotonic() + self.wait_s
            while len(self._items) < self.most and not self._closing and not self._items[0].call:
                left = end - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    break
            if self._closing:
                return None
            batch: list[_Item] = []
            while self._items and len(batch) < self.most:
                if self._items[0].future.cancelled():
                    self._items.popleft()
                elif self._items[0].call and batch:
                    break
                else:
                    batch.append(self._items.popleft())
                    if batch[0].call:
                        break
            return batch

    def _do(self, batch: list[_Item]) -> None:
        if not batch:
            return
        try:
            if batch[0].call:
                results: Sequence[Any] = [batch[0].row()]
            else:
                self.batches += 1
                self.computed += len(batch)
                results = self.compute([item.row for item in batch])
        except ApiError as error:  # a refusal that tells its reason
            results = [error] * len(batch)
        except Exception:  # whatever the model or the allocator raises, these requests must be told, and others go on
            log.exception("the model failed on a batch")
            results = [Failed("the model failed on this request")] * len(batch)
        for item, result in zip(batch, results):
            item.tell(result)
