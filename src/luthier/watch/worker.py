"""The watch: looks for changes and due times, queues updates, and runs them one after another."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import LuthierError, SpecError, StoreError
from luthier.progress import JsonLines, Progress, Silent
from luthier.project import Project
from luthier.project.base import FILE
from luthier.project.schedule import Schedule, parse_schedule
from luthier.project.updates import Watch
from luthier.types import digest
from luthier.watch.process import PASSING, Answer, Process, answer_file, read_answer
from luthier.watch.queue import Job, LostJob, Queue, only_worker
from luthier.watch.sources import Quiet, watched

BEAT_S = 10.0
LONGEST_WAIT_S = 3600.0
FOLDER = "watch"
"""In `.luthier/`: queue, locks and answers."""
Command = Callable[[Job], Sequence[str]]


@dataclass(frozen=True)
class Running:
    """The job at work."""

    job: Job
    process: Process


class Worker:
    """One step at a time: `step` never waits, so that looking, beating and stopping go on while a job runs."""

    def __init__(self, folder: Path, *, overrides: Sequence[str] = (), command: Command | None = None,
                 progress: Progress = Silent(), clock: Callable[[], float] = time.time, name: str | None = None):
        """`folder`: the project. `command` runs a job and gets the file for its answer as its last argument."""
        self.folder, self.overrides, self.progress, self.clock = folder, tuple(overrides), progress, clock
        self.command = command or self._update
        self.project = Project.open(folder, overrides=overrides)
        self.state = self.project.state / FOLDER
        self.queue = Queue(self.state / "queue.sqlite", clock=clock)
        self.name = name or f"{time.time_ns():x}"
        self.quiet = Quiet()
        self.running: Running | None = None
        self.ended: list[tuple[Job, str]] = []
        """What ended since the start, with its state."""
        self._told, self._stays = "", True
        self._looked = self._beaten = float("-inf")
        self._yaml = self._yaml_state()
        self._forget_old_answers()

    @property
    def spec(self) -> Watch:
        return self.project.spec.watch

    # Triggers

    def look(self) -> bool:
        """Queue what has become due; whether a change is still coming to rest."""
        self._reopen()
        self._look_at_clock()
        return self._look_at_files() if self.spec.on_change else False

    def _look_at_files(self) -> bool:
        root, queue = self.project.root, self.queue
        seen = self.quiet.look(watched(self.project.spec, root), root, settle_s=self.spec.settle_s,
                               known=queue.note("listing"))
        if seen.waiting:
            self._say_once(f"Watching: {seen.waiting}")
            return bool(seen.listing)
        if seen.content is None:
            return False
        notes = {"listing": seen.listing, "content": seen.content}
        if seen.content == queue.note("content"):  # touched, not changed
            queue.write_notes(notes)
            return False
        # Each key stands on the one before: going back to an old content is a new change.
        key = digest("change", queue.note("change") or "", seen.content, length=24)
        queue.add(key, {"trigger": "change", "files": seen.num_files, "content": seen.content},
                  notes={**notes, "change": key})
        self._say_once(f"Watching: files have changed ({seen.num_files} in all); an update is queued")
        return False

    @property
    def schedule(self) -> Schedule | None:
        return parse_schedule(self.spec.schedule) if self.spec.schedule else None

    def _look_at_clock(self) -> None:
        schedule, now = self.schedule, self.clock()
        if schedule is None:
            return
        if self.queue.note("schedule") != schedule.text:
            self.queue.write_notes({"schedule": schedule.text, "schedule_since": repr(now)})
        since = float(self.queue.note("schedule_since") or now)
        slot = schedule.last(since, now)
        if slot is not None:
            key = digest("schedule", schedule.text, slot.name, length=24)
            if self.queue.add(key, {"trigger": "schedule", "schedule": schedule.text, "slot": slot.name},
                              notes={"schedule_since": repr(slot.at)}):
                self._say_once(f"Watching: '{schedule.text}' is due; an update is queued")

    def next_slot(self) -> float | None:
        """When the schedule is due next, in seconds since 1970."""
        schedule = self.schedule
        if schedule is None:
            return None
        return schedule.next(float(self.queue.note("schedule_since") or self.clock()), self.clock()).at

    def _reopen(self) -> None:
        """Take up changes of luthier.yaml; one that cannot be read leaves the settings as they were."""
        state = self._yaml_state()
        if state == self._yaml:
            return
        self._yaml = state
        try:
            self.project = Project.open(self.folder, overrides=self.overrides)
            self.progress.say(f"Watching: took up the changes of {FILE}")
        except LuthierError as error:
            self.progress.say(f"Watching: {FILE} is wrong, so its changes do not count yet: {error}")

    def _yaml_state(self) -> tuple[int, int] | None:
        file = self.folder if self.folder.is_file() else self.folder / FILE
        try:
            about = file.stat()
        except OSError:
            return None
        return about.st_size, about.st_mtime_ns

    # Jobs

    def start_next(self) -> bool:
        """Begin the next due job; False when there is none."""
        job = self.queue.claim(self.name)
        if job is None:
            return False
        file = answer_file(self.state, job)
        told = read_answer(file)
        if told is not None:  # the watch died between the job's end and the note of it
            self._record(job, told)
            return True
        if job.attempts > 1 + self.spec.retries:  # what it does ends the whole watch again and again
            self._record(job, Answer("failed", {"error": job.error or "the watch itself died each time that this "
                                                "update ran; see the system's log (out of memory?)"}))
            return True
        again = f", attempt {job.attempts}" if job.attempts > 1 else ""
        self.progress.say(f"Update {job.id} begins ({why_of(job)}{again})", job=job.id, attempt=job.attempts)
        self._told = ""
        self.running = Running(job, Process(self.command(job), file))
        return True

    def _update(self, job: Job) -> Sequence[str]:
        settings = [text for setting in self.overrides for text in ("--set", setting)]
        as_json = ["--json"] if isinstance(self.progress, JsonLines) else []
        return [sys.executable, "-m", "luthier.watch.job", str(self.folder), *as_json, *settings]

    def _record(self, job: Job, answer: Answer | None) -> None:
        """Note how an attempt ended, and only then forget its answer."""
        if answer is None:
            self.queue.give_back(job)
            self.progress.say(f"Update {job.id} was stopped; it goes on at the next start", job=job.id)
        elif answer.end is not None:
            self.queue.finish(job, answer.end, answer.facts)
            self._end(job, answer.end, answer.facts)
        elif job.attempts > self.spec.retries:
            facts = {**answer.facts, "attempts": job.attempts}
            self.queue.finish(job, "failed", facts)
            self._end(job, "failed", facts)
        else:
            wait = min(LONGEST_WAIT_S, self.spec.retry_s * 2 ** (job.attempts - 1))
            self.queue.retry(job, wait, str(answer.facts.get("error", "")))
            self.progress.say(f"Update {job.id} failed: {answer.facts.get('error')}\nIt is tried again in "
                              f"{wait:.0f} s", job=job.id, state=PASSING)
        answer_file(self.state, job).unlink(missing_ok=True)

    def _end(self, job: Job, state: str, facts: dict[str, Any]) -> None:
        self.ended.append((job, state))
        self.progress.say(f"Update {job.id}: {state}: {sentence_of(facts)}", job=job.id, state=state, outcome=facts)

    def _forget_old_answers(self) -> None:
        kept = {answer_file(self.state, job) for job in self.queue.jobs() if job.state == "running"}
        for file in self.state.glob("answer-*.json"):
            if file not in kept:
                file.unlink(missing_ok=True)

    # The loop

    def step(self) -> float:
        """Do what is to be done now; seconds until there is something to do again."""
        now = time.monotonic()
        if now - self._looked >= self.spec.poll_s:
            self._looked = now
            self.look()
        if self.running is not None:
            if not self.running.process.wait(0):
                if now - self._beaten >= BEAT_S:
                    self._beaten = now
                    self.queue.beat(self.running.job)
                return 0.2
            self._record(self.running.job, self.running.process.answer())
            self.running = None  # only now: a note that could not be written is written at the next step
        if self.start_next():
            return 0.0
        if not self._told and self._stays:
            self._say_once(f"Watching: {self.plan()}")
        return self._rest()

    def _rest(self) -> float:
        slot = self.next_slot()
        times = [self.spec.poll_s, *([slot - self.clock()] if slot is not None else []),
                 *(job.not_before - self.clock() for job in self.queue.jobs() if job.state == "queued")]
        return max(0.05, min(times))

    def plan(self) -> str:
        """What wakes the watch next, for a person."""
        slot = self.next_slot()
        parts = [f"files are looked at every {self.spec.poll_s:g} s"] if self.spec.on_change else []
        if slot is not None:
            parts.append(f"the next update by schedule is at {local(slot)}")
        return "; ".join(parts) or "nothing"

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; a running job is then asked to save and end."""
        try:
            while not stop.is_set():
                try:
                    stop.wait(self.step())
                except LostJob:
                    raise
                except StoreError as error:  # a full disk, most likely, and a person on the way
                    self._say_once(f"Watching: {error}")
                    stop.wait(BEAT_S)
        finally:
            self.close()

    def run_due(self, stop: threading.Event) -> None:
        """Do what is due now, a change that is coming to rest included, and return."""
        self._stays = False
        try:
            moving = self.look()
            while not stop.is_set() and (moving or self.running is not None or self._due()):
                if moving:
                    moving = self.look()
                self._looked = time.monotonic()  # what comes later belongs to the next call
                stop.wait(min(self.step(), 0.2))
        finally:
            self.close()

    def _due(self) -> bool:
        jobs = [job for job in self.queue.jobs() if job.outcome is None]
        return bool(jobs) and (jobs[0].state == "running" or jobs[0].not_before <= self.clock())

    def close(self) -> None:
        """Stop the running job and close the queue."""
        if self.running is not None:
            done, self.running = self.running, None
            done.process.stop(self.spec.stop_s)
            self._record(done.job, done.process.answer())
        self.queue.close()

    def _say_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.progress.say(text)


def watch(folder: Path, *, overrides: Sequence[str] = (), once: bool = False, progress: Progress = Silent(),
          command: Command | None = None) -> list[tuple[Job, str]]:
    """Watch a project until SIGTERM or Ctrl-C (`once`: do what is due now); what ended meanwhile, with its state.

    StoreError when another process watches the same folder, SpecError when neither changes nor times are to be watched.
    """
    project = Project.open(folder, overrides=overrides)
    if not project.spec.watch.on_change and project.spec.watch.schedule is None:
        raise SpecError("watch.on_change is false and watch.schedule is null, so there is nothing to watch for; set "
                        "one of them")
    with only_worker(project.state / FOLDER), _stopping() as stop:
        worker = Worker(folder, overrides=overrides, command=command, progress=progress)
        (worker.run_due if once else worker.run)(stop)
    return worker.ended


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second signal acts as usual."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def why_of(job: Job) -> str:
    """What triggered a job, in words."""
    if job.why.get("trigger") == "schedule":
        return f"schedule '{job.why['schedule']}'"
    return f"files changed, {job.why.get('files')} in all"


def sentence_of(facts: dict[str, Any]) -> str:
    """An outcome in words."""
    return str(facts.get("sentence") or facts.get("error") or facts)


def local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
