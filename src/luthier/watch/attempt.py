"""The job's side of its process: end with the watch, work alone, answer. Imports little, so that it starts fast."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from luthier.store import write_json
from luthier.watch.process import Answer
from luthier.watch.trouble import describe

WAIT_S = 60.0
"""Seconds for the job of a watch that died to notice it and to free the lock."""


def end_with_parent() -> None:
    """End this process at once when the one that started it is gone."""

    def listen() -> None:
        while os.read(0, 4096):  # returns nothing only when the other end is closed
            pass
        os._exit(70)

    threading.Thread(target=listen, name="luthier-parent", daemon=True).start()


def run(work: Callable[[], Answer], answer: Path) -> int:
    """Do the work, alone in its folder, and write its answer; errors are answers too. Returns the exit code."""
    from filelock import FileLock

    try:
        with FileLock(answer.parent / "job.lock").acquire(timeout=WAIT_S):
            told = work()
    except Exception as error:  # not SystemExit and KeyboardInterrupt: a training that was asked to stop has saved
        told = describe(error)
    return _write(told, answer)


def _write(told: Answer, answer: Path) -> int:
    for _ in range(60):  # a full disk: silence would be taken for a crash
        try:
            write_json(answer, {"state": told.state, "facts": told.facts})
            return 0
        except OSError:
            time.sleep(1)
    return 1
