"""Hyperband (Li et al. 2018) with asynchronous successive halving in each bracket, by Optuna.

Optuna keeps what a trial has passed in the trial; so do we (`Trial.memory`). Its known trap, that a fixed seed repeats
points in every bracket (#2046), does not arise: each trial's seed holds its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import PRUNERS, Better, Trial
from luthier.tune.searchers._optuna import quiet, study_of


@register(PRUNERS, "hyperband")
class Hyperband(Spec):
    """Gives every trial a little, and only the best share of them more, at several levels of patience."""

    warmup: int = Field(default=1, ge=1)
    """Reports (validations) that every trial gets before it can be stopped."""
    reports: int = Field(default=0, ge=0)
    """Reports of a full trial; 0: as many as the first trial that ran to its end, until which none is stopped."""
    factor: int = Field(default=3, ge=2)
    """One of this many trials goes on at each level."""

    def stop(self, trials: Sequence[Trial], number: int, *, better: Better) -> tuple[bool, Mapping[str, Any]]:
        full = self.reports or next((len(trial.reports) for trial in trials
                                      if trial.state == "done" and trial.reports), 0)
        if full <= self.warmup:
            return False, {}
        with quiet() as optuna:
            study = study_of(None, trials, better, ranked=True)
            pruner = optuna.pruners.HyperbandPruner(min_resource=self.warmup, max_resource=full,
                                                    reduction_factor=self.factor)
            stop = bool(pruner.prune(study, study.trials[number]))
            return stop, dict(study.trials[number].system_attrs)
