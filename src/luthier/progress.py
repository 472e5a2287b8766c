"""What long work tells the person or the machine that waits: what, how far, how long still.

Stages receive a `Progress` and never print. Output goes to stderr (data goes to stdout); with `--json` the same
events are one JSON object a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    def advance(self, count: float = 1, **shown: Any) -> None:
        """Move on by `count` units; `shown` are current values, such as loss=2.31."""


class Progress(Protocol):
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Any:
        """Context manager giving a `Bar`; `done` units were finished before (a resumed run)."""

    def say(self, message: str, **fields: Any) -> None:
        """One line for the person; `fields` are added to the JSON event."""


class _SilentBar:
    def advance(self, count: float = 1, **shown: Any) -> None:
        pass


class Silent:
    """Says nothing: the default in Python and in tests."""

    @contextmanager
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Iterator[Bar]:
        yield _SilentBar()

    def say(self, message: str, **fields: Any) -> None:
        pass


MANY = 20_000
"""Rows from which on passing over all of them is long work."""


@contextmanager
def passing(progress: Progress, what: str, rows: Iterable[T], count: int, *, passes: bool = False
            ) -> Iterator[Iterable[T]]:
    """The rows, counted by a bar while somebody goes over them; of fewer than `MANY` nothing is shown. `passes`: they
    are gone over nobody knows how often."""
    if count < MANY:
        yield rows
        return
    with progress.track(what, None if passes else count, unit="rows") as bar:
        yield _Counted(rows, bar)


class _Counted(Generic[T]):
    def __init__(self, rows: Iterable[T], bar: Bar):
        self._rows, self._bar = rows, bar

    def __iter__(self) -> Iterator[T]:
        for row in self._rows:
            yield row
            self._bar.advance()


class _JsonBar:
    def __init__(self, what: str, total: float | None, unit: str, done: float):
        self.what, self.total, self.unit, self.done, self.first = what, total, unit, done, done
        self.began, self.last = time.monotonic(), 0.0

    def advance(self, count: float = 1, **shown: Any) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= 0.5 or self.done == self.total:  # two lines a second are enough for any reader
            self.last = now
            rate = (self.done - self.first) / max(now - self.began, 1e-9)
            left = None if self.total is None or rate <= 0 else round((self.total - self.done) / rate, 1)
            emit(event="progress", what=self.what, done=self.done, total=self.total, unit=self.unit,
                 seconds_left=left, **shown)


def emit(**fields: Any) -> None:
    """One JSON event on stderr."""
    print(json.dumps(fields, default=str), file=sys.stderr, flush=True)


class JsonLines:
    """Machine-readable progress on stderr."""

    @contextmanager
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Iterator[Bar]:
        bar = _JsonBar(what, total, unit, done)
        emit(event="start", what=what, total=total, unit=unit, done=done)
        yield bar
        emit(event="end", what=what, done=bar.done, seconds=round(time.monotonic() - bar.began, 2))

    def say(self, message: str, **fields: Any) -> None:
        emit(event="say", message=message, **fields)


class _RichBar:
    def __init__(self, bars: Any, task: Any):
        self.bars, self.task = bars, task
        self.shown: dict[str, Any] = {}

    def advance(self, count: float = 1, **shown: Any) -> None:
        self.shown |= shown
        text = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.shown.items())
        self.bars.update(self.task, advance=count, shown=text)


class Terminal:
    """Bars with time left on a terminal; start and end lines only when stderr is a file or a pipe."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Iterator[Bar]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if not self.console.is_terminal:
            began = time.monotonic()
            bar = _PlainBar(self.console, what, total, unit, done)
            yield bar
            amount = f" {bar.done:g} {unit}".rstrip() if bar.done else ""
            self.console.print(f"  {what}:{amount} in {time.monotonic() - began:.1f} s", highlight=False)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn(unit),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[shown]}"))
        with Progress(*columns, console=self.console, transient=False) as bars:
            yield _RichBar(bars, bars.add_task(what, total=total, completed=int(done), shown=""))

    def say(self, message: str, **fields: Any) -> None:
        self.console.print(message, highlight=False, soft_wrap=True, markup=False)  # "[train]" is no style


class _PlainBar:
    """Without a terminal a line every 15 seconds, so that a log shows life and time left."""

    def __init__(self, console: Any, what: str, total: float | None, unit: str, done: float):
        self.console, self.what, self.total, self.unit = console, what, total, unit
        self.done, self.first, self.began, self.last = done, done, time.monotonic(), time.monotonic()

    def advance(self, count: float = 1, **shown: Any) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < 15:
            return
        self.last = now
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        left = f", about {(self.total - self.done) / rate:.0f} s left" if self.total and rate > 0 else ""
        values = "".join(f", {k} {v:.4g}" if isinstance(v, float) else f", {k} {v}" for k, v in shown.items())
        total = f" of {self.total:g}" if self.total else ""
        self.console.print(f"  {self.what}: {self.done:g}{total} {self.unit}{values}{left}", highlight=False)
