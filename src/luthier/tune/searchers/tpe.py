"""Tree-structured Parzen estimator (Bergstra et al. 2011; multivariate: Falkner et al. 2018), by Optuna."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import SEARCHERS, Point, Question
from luthier.tune.searchers._optuna import suggested
from luthier.tune.space import Space


@register(SEARCHERS, "tpe")
class TPE(Spec):
    """Bayesian search that models good and bad points; takes fields of any kind, conditional ones too."""

    startup: int = Field(default=8, ge=1)
    """Trials drawn by chance first: the same points that `random` draws with the same seed."""
    candidates: int = Field(default=24, ge=1)
    """Points that are weighed against each other for each trial."""

    def check(self, space: Space) -> str:
        return ""

    def suggest(self, question: Question) -> Point | None:
        return suggested(question, self._sampler, startup=self.startup)

    def _sampler(self, optuna: Any, seed: int) -> Any:
        # `multivariate` sees fields together, `group` also where some exist only under a condition, `constant_liar`
        # keeps parallel workers apart.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True,
                                          n_startup_trials=1, n_ei_candidates=self.candidates)
