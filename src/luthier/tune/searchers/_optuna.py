"""A search as an Optuna study, rebuilt from its trials whenever it is asked: nothing to keep in step with, nothing to
lose, and the same question gives the same answer."""

from __future__ import annotations

import datetime
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from luthier.errors import need
from luthier.store import canonical
from luthier.tune.seams import Better, Point, Question, Trial
from luthier.tune.searchers._draw import drawn, seen
from luthier.tune.space import Axis, Space

REDRAWS = 8


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its log lines and its warnings about features that we chose on purpose."""
    optuna = need("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield optuna


def study_of(space: Space | None, trials: Sequence[Trial], better: Better, *, sampler: Any = None,
             name: str = "luthier", ranked: bool = False) -> Any:
    """The trials as an in-memory study, with their numbers; `ranked` counts reports (1, 2, …) instead of steps."""
    optuna = need("optuna", extra="tune")
    from optuna.trial import FrozenTrial, TrialState

    state = {"running": TrialState.RUNNING, "done": TrialState.COMPLETE, "pruned": TrialState.PRUNED,
             "failed": TrialState.FAIL, "cut": TrialState.RUNNING}
    study = optuna.create_study(direction="maximize" if better == "higher" else "minimize", sampler=sampler,
                                pruner=optuna.pruners.NopPruner(), study_name=name)
    now = datetime.datetime.fromtimestamp(0)
    for trial in trials:
        known = {axis.path: axis for axis in space.axes if axis.path in trial.point} if space else {}
        params = {path: inner(axis, trial.point[path]) for path, axis in known.items()}
        steps = {place if ranked else step: value for place, (step, value) in enumerate(trial.reports, start=1)}
        ended = trial.state in ("done", "pruned", "failed")
        value = trial.value if trial.state in ("done", "pruned") else None
        study.add_trial(FrozenTrial(
            number=trial.number, trial_id=trial.number, state=state[trial.state], value=value, params=params,
            distributions={path: distribution(axis) for path, axis in known.items()}, intermediate_values=steps,
            system_attrs=dict(trial.memory), user_attrs={}, datetime_start=now,
            datetime_complete=now if ended else None))
    return study


def distribution(axis: Axis) -> Any:
    """Optuna's idea of a field: a number on its scale, or the position among its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    dimension = axis.dimension
    if dimension.values is None:
        low, high = dimension.log or dimension.range or (0.0, 1.0)
        return FloatDistribution(low, high, log=dimension.log is not None)
    count = len(dimension.values)
    return IntDistribution(0, count - 1) if dimension.ordered else CategoricalDistribution(range(count))


def inner(axis: Axis, value: Any) -> Any:
    return value if axis.dimension.values is None else axis.dimension.index(value)


def outer(axis: Axis, value: Any) -> Any:
    return axis.dimension.neat(value) if axis.dimension.values is None else axis.dimension.values[value]


def suggested(question: Question, make_sampler: Any, *, startup: int) -> Point | None:
    """A point by chance for the first `startup` trials, then what the sampler finds promising, never one twice.

    `make_sampler(optuna, seed)` gives the sampler; its seed depends on the search's seed, the trial's number and the
    attempt, so that no two trials draw the same numbers.
    """
    counted = sum(trial.counted for trial in question.trials)
    if question.number < startup or counted < min(startup, 3):
        return drawn(question)
    tried = seen(question.trials)
    for attempt in range(REDRAWS):
        seed = zlib.crc32(f"{question.seed}:{question.number}:{attempt}".encode())
        with quiet() as optuna:
            asked = study_of(question.space, question.trials, question.better,
                             sampler=make_sampler(optuna, seed)).ask()
            point = question.space.fill(lambda axis: outer(axis, _chosen(asked, axis)))  # noqa: B023
        if canonical(point) not in tried:
            return point
    return drawn(question)


def _chosen(asked: Any, axis: Axis) -> Any:
    dimension = axis.dimension
    if dimension.values is None:
        low, high = dimension.log or dimension.range or (0.0, 1.0)
        return asked.suggest_float(axis.path, low, high, log=dimension.log is not None)
    count = len(dimension.values)
    if dimension.ordered:
        return asked.suggest_int(axis.path, 0, count - 1)
    return asked.suggest_categorical(axis.path, range(count))
