"""A job in a process of its own: its memory returns to the system, and a crash does not take the watch with it.

This is the watch's side; `attempt` is the job's. The process ends when its watch does, however that ends: it reads from
a pipe that only the watch holds open.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from luthier.watch.queue import ENDED, Job, State

PASSING = "passing"
"""State of an answer that tells of trouble that may pass."""


@dataclass(frozen=True)
class Answer:
    """How an attempt ended."""

    state: str
    """One of `queue.ENDED`, or PASSING."""
    facts: dict[str, Any]
    """The outcome; of trouble: `error`, a sentence."""

    @property
    def end(self) -> State | None:
        """The job's last state; None for trouble that may pass."""
        return cast(State, self.state) if self.state in ENDED else None


def answer_file(folder: Path, job: Job) -> Path:
    return folder / f"answer-{job.id}-{job.key}.json"


def read_answer(file: Path) -> Answer | None:
    """What a process wrote before it ended; None where it did not come to that."""
    try:
        data = json.loads(file.read_text("utf-8"))
        return Answer(data["state"], data["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Process:
    """A running job."""

    def __init__(self, command: Sequence[str], file: Path, *, env: Mapping[str, str] | None = None):
        """`command` gets the answer's file as its last argument."""
        self.file = file
        self._stopped = False
        # Away from the terminal's process group: Ctrl-C reaches the watch alone, which then asks the job to stop.
        self._process = subprocess.Popen([*command, str(file)], stdin=subprocess.PIPE, stdout=2,
                                         start_new_session=True, env=None if env is None else dict(env))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, seconds: float) -> None:
        """Ask it to save and end; kill it after that time."""
        self._stopped = True
        self._process.terminate()
        if not self.wait(seconds):
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def answer(self) -> Answer | None:
        """How it ended; None when it was stopped before it was done."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        code = self._process.returncode
        told = read_answer(self.file)
        if told is not None:
            return told
        if self._stopped:
            return None
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (by the system, for want of memory?)" if -code == signal.SIGKILL else ""
            return Answer(PASSING, {"error": f"the process was ended by {name}{hint}"})
        return Answer("failed", {"error": f"the process ended with code {code} and no answer"})
