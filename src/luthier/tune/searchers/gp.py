"""Gaussian-process search (Snoek et al. 2012) with expected improvement, by Optuna."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import SEARCHERS, Point, Question
from luthier.tune.searchers._optuna import suggested
from luthier.tune.space import Space


@register(SEARCHERS, "gp")
class GP(Spec):
    """Bayesian search for few, expensive trials over numbers; slower to choose than tpe (it fits a surface)."""

    startup: int = Field(default=6, ge=1)
    """Trials drawn by chance first: the same points that `random` draws with the same seed."""
    exact: bool = False
    """The same settings always give the same value (no noise)."""

    def check(self, space: Space) -> str:
        if space.conditional:
            parts = ", ".join(axis.path for axis in space.axes if axis.parent)
            return f"gp cannot search fields that exist only with some values of another ({parts}); use searcher: tpe"
        return ""

    def suggest(self, question: Question) -> Point | None:
        return suggested(question, self._sampler, startup=self.startup)

    def _sampler(self, optuna: Any, seed: int) -> Any:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=self.exact,
                                         warn_independent_sampling=False)
