"""The file that is the search: one JSON event a line, appended under a lock, so that `kill -9` costs nothing.

Each running trial holds a lock of its own that the operating system drops when its process dies, however it dies: a
trial marked as running whose lock is free is one that must be run again, with the same point and number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from luthier.store import tell_disk_trouble
from luthier.tune.seams import Trial

TRIALS = "trials.jsonl"


class Journal:
    """The trials of one study, shared by any number of processes."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / TRIALS
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "journal.lock")
        self._offset = 0
        self._trials: dict[int, Trial] = {}
        self._looks: list[dict[str, Any]] = []
        self._before, self._began, self._last = 0.0, 0.0, 0.0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads and then writes in between."""
        with self._lock:
            yield

    def append(self, event: str, **fields: Any) -> None:
        """Add one event, synced to the disk."""
        line = json.dumps({"event": event, "at": round(time.time(), 3), **fields}, ensure_ascii=False,
                          allow_nan=True) + "\n"
        with tell_disk_trouble(self.folder), self.locked(), self.file.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")  # a killed process left half a line: it stays there, alone
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def trials(self) -> list[Trial]:
        """Every trial as it stands now, by number."""
        self._read()
        return [self._trials[number] for number in sorted(self._trials)]

    def looks(self) -> list[dict[str, Any]]:
        """When the test split was looked at, and what it said."""
        self._read()
        return list(self._looks)

    def elapsed(self, *, now: float | None = None) -> float:
        """Seconds spent searching, over all calls; with `now`, up to now for the call that is under way."""
        self._read()
        last = self._last if now is None else max(now, self._last)
        return self._before + max(0.0, last - self._began)

    def hold(self, number: int) -> FileLock | None:
        """The lock of a trial, or None when a living process runs it."""
        lock = FileLock(self.folder / f"trial-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _read(self) -> None:
        try:
            with self.file.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[:new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # half a line of a killed process
                self._apply(json.loads(line))

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind, at = event["event"], event["at"]
        if kind == "open":
            self._before += max(0.0, self._last - self._began)
            self._began = self._last = at
            return
        if kind == "look":
            self._looks.append({key: value for key, value in event.items() if key != "event"})
            return
        self._last = max(self._last, at)
        number = event["trial"]
        if kind == "start":
            known = self._trials.get(number)
            self._trials[number] = (
                dataclasses.replace(known, state="running", pid=event["pid"]) if known else
                Trial(number=number, point=event["point"], pid=event["pid"]))
            return
        trial = self._trials[number]
        if kind == "report":
            reports = tuple(sorted({**dict(trial.reports), event["step"]: event["value"]}.items()))
            trial = dataclasses.replace(trial, reports=reports)
        elif kind == "remember":
            trial = dataclasses.replace(trial, memory=event["memory"])
        elif kind == "died":
            trial = dataclasses.replace(trial, deaths=trial.deaths + 1, note=event["note"])
        elif kind == "again":
            trial = dataclasses.replace(trial, state="cut", note="", deaths=0)
        elif kind == "end":
            trial = dataclasses.replace(trial, state=event["state"], value=event["value"], seconds=event["seconds"],
                                        note=event["note"], facts=event["facts"])
        self._trials[number] = trial


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
