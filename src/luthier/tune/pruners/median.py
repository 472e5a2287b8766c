"""The median stopping rule (Golovin et al. 2017), by Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import PRUNERS, Better, Trial
from luthier.tune.searchers._optuna import quiet, study_of


@register(PRUNERS, "median")
class Median(Spec):
    """Stops a trial whose best report is worse than the median of the others' at the same point."""

    startup: int = Field(default=4, ge=1)
    """Trials that must have run to their end before any is stopped."""
    warmup: int = Field(default=1, ge=0)
    """Reports (validations) of a trial during which it is never stopped."""

    def stop(self, trials: Sequence[Trial], number: int, *, better: Better) -> tuple[bool, Mapping[str, Any]]:
        with quiet() as optuna:
            study = study_of(None, trials, better, ranked=True)
            # Optuna spares the reports below n_warmup_steps; ours count from 1
            pruner = optuna.pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.warmup + 1)
            return bool(pruner.prune(study, study.trials[number])), {}
