"""The seams where searchers and pruners dock, and what passes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from luthier.plugins import Seam

if TYPE_CHECKING:
    from luthier.tune.space import Space

SEARCHERS = Seam("searcher", package="luthier.tune.searchers")
PRUNERS = Seam("pruner", package="luthier.tune.pruners")

Better = Literal["lower", "higher"]
State = Literal["running", "done", "pruned", "failed", "cut"]
Point = Mapping[str, Any]
"""Values by field path; fields that do not apply (their parent has another kind) are absent."""


class Stopped(Exception):
    """Raised by an objective that ends early because `report` answered True."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One tried point."""

    number: int
    """From 0, in the order in which points were chosen."""
    point: Point
    state: State = "running"
    """`running`, or died while it ran; `done`; `pruned`: stopped because it was behind; `failed`: ended with an error;
    `cut`: interrupted or out of time, and continued at the next call."""
    value: float | None = None
    """What the objective gave; the last report of a pruned trial."""
    reports: tuple[tuple[int, float], ...] = ()
    """(step, value) in the order of the steps."""
    seconds: float = 0.0
    note: str = ""
    """Why it failed, or where its value comes from."""
    deaths: int = 0
    """How often its process was seen to die."""
    pid: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the objective adds, such as the id of the model."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the pruner remembers about it."""

    @property
    def counted(self) -> bool:
        """Whether its value says something about its point."""
        return self.state in ("done", "pruned") and self.value is not None


@dataclass(frozen=True)
class Outcome:
    """What an objective may return instead of a plain number."""

    value: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What a searcher is asked with: the point of trial `number`, given all trials before it."""

    space: Space
    trials: Sequence[Trial]
    number: int
    seed: int
    better: Better


class Searcher(Protocol):
    """Registered with `@register(SEARCHERS, "name")` on a Spec. A pure function of the question, so that a search goes
    on after a crash exactly as it would have without it."""

    kind: ClassVar[str]

    def check(self, space: Space) -> str:
        """What stands against searching this space, as the end of a sentence; empty: nothing."""
        ...

    def suggest(self, question: Question) -> Point | None:
        """The next point, none of which was tried before; None when there is nothing left to try."""
        ...

    def dump(self) -> dict[str, Any]: ...


class Pruner(Protocol):
    """Registered with `@register(PRUNERS, "name")` on a Spec."""

    kind: ClassVar[str]

    def stop(self, trials: Sequence[Trial], number: int, *, better: Better) -> tuple[bool, Mapping[str, Any]]:
        """Whether trial `number` is too far behind after its newest report, and what to remember about it."""
        ...

    def dump(self) -> dict[str, Any]: ...


class Running(Protocol):
    """What an objective gets."""

    number: int
    point: Point
    overrides: Mapping[str, Any]
    """The point as settings: values by field path, conditional fields merged into their parents."""

    def report(self, step: int, value: float) -> bool:
        """Note an intermediate value; True: stop now (raise `Stopped`)."""
        ...


Objective = Callable[[Any], "float | Outcome"]
"""Called with a `Running`; must be picklable for more than one worker. A `LuthierError` makes the trial fail and the
search go on."""


def is_better(value: float, than: float | None, better: Better) -> bool:
    return than is None or (value > than if better == "higher" else value < than)


def best_of(trials: Sequence[Trial], better: Better) -> Trial | None:
    """The finished trial with the best value; the earlier of equals."""
    best: Trial | None = None
    for trial in trials:
        if trial.state == "done" and trial.value is not None and (
                best is None or is_better(trial.value, best.value, better)):
            best = trial
    return best
