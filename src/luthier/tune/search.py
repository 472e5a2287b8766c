"""Run a search: choose a point, try it, write down what came out; in one process or several, again after any crash."""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from luthier.errors import LuthierError, SpecError, StoreError
from luthier.progress import Progress, Silent
from luthier.store import canonical
from luthier.tune.base import Tune
from luthier.tune.journal import Journal
from luthier.tune.seams import Better, Objective, Outcome, Point, Question, Stopped, Trial, best_of
from luthier.tune.space import Space

MOST_DEATHS = 2
HOPELESS = 3
"""So many failures, and nothing else, end a search: the fault is not in the settings."""


@dataclass(frozen=True)
class Search:
    """All that a worker must know; picklable."""

    objective: Objective
    space: Space
    spec: Tune
    folder: Path
    better: Better
    known: Mapping[str, Trial] = field(default_factory=dict)
    """Finished trials of another search by their point's text: taken over instead of run again."""


@dataclass
class Attempt:
    """A trial under way: what the objective gets."""

    search: Search
    journal: Journal
    number: int
    point: Point
    cut: bool = False
    stopped: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The point as settings: values by field path, conditional fields merged into their parents."""
        return self.search.space.overrides(self.point)

    def report(self, step: int, value: float) -> bool:
        """Note an intermediate value; True: stop now (raise `Stopped`)."""
        with self.journal.locked():
            self.journal.append("report", trial=self.number, step=step, value=value)
            trials = self.journal.trials()
            if not math.isfinite(value):
                return False  # the objective ends by itself, with an error that says more
            stop, memory = self.search.spec.pruner.stop(trials, self.number, better=self.search.better)
            if memory and memory != trials[self.number].memory:
                self.journal.append("remember", trial=self.number, memory=dict(memory))
        self.stopped = self.stopped or stop
        if out_of_time(self.search, self.journal) and best_of(trials, self.search.better) is not None:
            self.cut = not self.stopped
        return self.stopped or self.cut


def search(objective: Objective, space: Space, spec: Tune, *, folder: Path, better: Better = "lower",
           progress: Progress = Silent(), known: Mapping[str, Trial] | None = None, what: str = "tune") -> list[Trial]:
    """Search until the budget is spent or nothing is left to try; returns all trials of the study in `folder`.

    What an earlier call finished is kept; what died in it is run again with the same point. `objective` gets an
    `Attempt` and returns a number (or `Outcome`) of which a `better` one is wanted. Raises SpecError when the searcher
    cannot search the space, StoreError when another process runs this search, and LuthierError when the first three
    trials all fail.
    """
    against = spec.searcher.check(space)
    if against:
        raise SpecError(f"tune.searcher: {against}")
    if not spec.trials and not spec.minutes and space.size is None:
        raise SpecError("tune: give a budget in trials or in minutes; the space has no end")
    plan = Search(objective, space, spec, folder, better, known or {})
    journal = Journal(folder)
    alone = FileLock(folder / "search.lock")
    try:
        alone.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"another luthier process runs this search (in {folder}); wait for it or stop it") from None
    try:
        if hopeless(journal.trials()):
            for trial in journal.trials():  # the fault was not in the settings, and may be mended by now
                journal.append("again", trial=trial.number)
        before = journal.trials()
        if claimable(plan, journal, before):
            journal.append("open", pid=os.getpid())
        total = min((n for n in (spec.trials or None, space.size) if n), default=None)
        ended = {trial.number for trial in before if trial.state not in ("running", "cut")}
        with progress.track(what, total, unit="trials", done=len(ended)) as bar:
            teller = Teller(plan, journal, progress, bar, ended)
            if spec.workers == 1:
                while step(plan, journal):
                    teller.tell()
            else:
                _with_workers(plan, journal, teller)
            teller.tell()
    finally:
        alone.release()
    trials = journal.trials()
    if hopeless(trials):
        raise LuthierError(f"the first {HOPELESS} trials all failed, so the search was ended; the last one: "
                           f"{trials[-1].note}")
    return trials


def out_of_time(plan: Search, journal: Journal) -> bool:
    return bool(plan.spec.minutes) and journal.elapsed(now=time.time()) >= plan.spec.minutes * 60


def hopeless(trials: list[Trial]) -> bool:
    ended = [trial for trial in trials if trial.state != "running"]
    return len(ended) >= HOPELESS and all(trial.state == "failed" for trial in ended)


def claimable(plan: Search, journal: Journal, trials: list[Trial]) -> bool:
    """Whether this call has anything to do."""
    spent = bool(plan.spec.minutes) and journal.elapsed() >= plan.spec.minutes * 60
    if hopeless(trials) or (spent and best_of(trials, plan.better) is not None):
        return False
    if any(trial.state in ("running", "cut") for trial in trials):
        return True
    return (not plan.spec.trials or len(trials) < plan.spec.trials) and _next(plan, trials) is not None


def _next(plan: Search, trials: list[Trial]) -> Point | None:
    return plan.spec.searcher.suggest(Question(plan.space, trials, len(trials), plan.spec.seed, plan.better))


def claim(plan: Search, journal: Journal) -> tuple[Attempt, FileLock] | None:
    """The next trial with its lock: one that died first, then a new point; None: nothing is left for this process."""
    with journal.locked():
        while True:
            trials = journal.trials()
            if hopeless(trials) or (out_of_time(plan, journal) and best_of(trials, plan.better) is not None):
                return None
            for trial in trials:
                held = journal.hold(trial.number) if trial.state in ("running", "cut") else None
                if held is None:
                    continue
                if trial.deaths >= MOST_DEATHS:
                    journal.append("end", trial=trial.number, state="failed", value=None, seconds=0.0, facts={},
                                   note=f"its process ended {trial.deaths} times without a result ({trial.note})")
                    held.release()
                    continue
                journal.append("start", trial=trial.number, point=trial.point, pid=os.getpid())
                return Attempt(plan, journal, trial.number, trial.point), held
            number = len(trials)
            if plan.spec.trials and number >= plan.spec.trials:
                return None
            point = _next(plan, trials)
            if point is None:
                return None
            held = journal.hold(number)
            if held is None:
                raise StoreError(f"{journal.folder} is used by another process; wait for it or stop it")
            journal.append("start", trial=number, point=dict(point), pid=os.getpid())
            same = plan.known.get(canonical(point))
            if same is None:
                return Attempt(plan, journal, number, point), held
            journal.append("end", trial=number, state=same.state, value=same.value, seconds=same.seconds,
                           facts=dict(same.facts), note=same.note or f"same settings as trial {same.number} of the "
                                                                     "compared search")
            held.release()


def step(plan: Search, journal: Journal) -> bool:
    """Run one trial to its end; False when there is none to run."""
    claimed = claim(plan, journal)
    if claimed is None:
        return False
    attempt, held = claimed
    began = time.monotonic()
    state, value, note, facts = "cut", None, "interrupted", {}
    try:
        found = plan.objective(attempt)
        value, facts = (found.value, dict(found.facts)) if isinstance(found, Outcome) else (float(found), {})
        state, note = "done", ""
        if not math.isfinite(value):
            state, note, value = "failed", f"the value is {value}, not a number that can be compared", None
    except Stopped:
        reports = next(t for t in journal.trials() if t.number == attempt.number).reports
        state, value, note = (("pruned", reports[-1][1], f"behind after {len(reports)} reports") if attempt.stopped else
                              ("cut", None, "out of time"))
    except LuthierError as error:
        state, note = "failed", str(error)
    finally:  # also when interrupted (Ctrl-C): the trial then continues at the next call
        journal.append("end", trial=attempt.number, state=state, value=value, note=note, facts=facts,
                       seconds=round(time.monotonic() - began, 3))
        held.release()
    return True


class Teller:
    """Tells the person each trial that ended, and the best so far."""

    def __init__(self, plan: Search, journal: Journal, progress: Progress, bar: Any, told: set[int]):
        self.plan, self.journal, self.progress, self.bar, self.told = plan, journal, progress, bar, told

    def tell(self) -> None:
        trials = self.journal.trials()
        best = best_of(trials, self.plan.better)
        for trial in trials:
            if trial.state in ("running", "cut") or trial.number in self.told:
                continue
            self.told.add(trial.number)
            shown = f"{trial.value:.4g}" if trial.value is not None else trial.state
            lead = "  best so far" if best is not None and best.number == trial.number else ""
            reason = f"  ({trial.note})" if trial.note and trial.state != "done" else ""
            minutes = self.plan.spec.minutes
            left = {} if not minutes else {
                "minutes_left": round(max(0.0, minutes - self.journal.elapsed(now=time.time()) / 60), 1)}
            if best is not None and best.value is not None:
                left["best"] = best.value
            self.progress.say(f"  trial {trial.number}: {shown} {trial.state}  {one_line(trial.point)}  "
                              f"{trial.seconds:.1f} s{lead}{reason}", trial=trial.number, state=trial.state,
                              value=trial.value, point=dict(trial.point), best=best.number if best else None)
            self.bar.advance(1, **left)


def one_line(point: Mapping[str, Any]) -> str:
    """A point for people."""
    return " ".join(f"{path}={value:.6g}" if isinstance(value, float) else
                    f"{path}={value if isinstance(value, str) else canonical(value)}" for path, value in point.items())


def _with_workers(plan: Search, journal: Journal, teller: Teller) -> None:
    """Keep `workers` processes busy; one that is killed is replaced, and its trial is run again."""
    context = multiprocessing.get_context("spawn")
    running: list[Any] = []

    def start() -> Any:
        process = context.Process(target=_work, args=(plan,))
        process.start()
        return process

    try:
        running = [start() for _ in range(plan.spec.workers)]
        while running:
            wait([process.sentinel for process in running], timeout=0.3)
            teller.tell()
            for process in [process for process in running if process.exitcode is not None]:
                running.remove(process)
                if process.exitcode == 0:
                    continue
                if process.exitcode > 0:
                    raise LuthierError(f"a worker of the search ended with an error (exit code {process.exitcode}), "
                                       "which is shown above; finished trials are kept")
                for trial in journal.trials():
                    if trial.state == "running" and trial.pid == process.pid:
                        journal.append("died", trial=trial.number, note=f"signal {-process.exitcode}"
                                       + (", perhaps out of memory" if process.exitcode == -9 else ""))
                running.append(start())
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _work(plan: Search) -> None:
    """A worker: one trial after the other until nothing is left."""
    _die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.spec.workers)))
    journal = Journal(plan.folder)
    while step(plan, journal):
        pass


def _die_with_parent() -> None:
    """A search that was killed must not go on in its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int, leave: Callable[[int], None]) -> None:
        wait([sentinel])
        leave(1)

    threading.Thread(target=watch, args=(parent.sentinel, os._exit), daemon=True).start()
