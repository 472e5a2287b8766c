"""`tune`: the section of the project file, and what a search is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luthier.spec import Spec
from luthier.tune.pruners.none import NoPruner
from luthier.tune.seams import PRUNERS, SEARCHERS, Pruner, Searcher
from luthier.tune.searchers.tpe import TPE
from luthier.tune.space import Dimension

__all__ = ["PRUNERS", "SEARCHERS", "Dimension", "Tune"]


class Tune(Spec):
    """What `luthier tune` searches, how, and for how long."""

    space: dict[str, Dimension] = {}
    """Fields by their path and the values to try, such as `train.learning_rate: {log: [1e-5, 1e-3]}`. Values are
    `{log: [low, high]}`, `{range: [low, high]}` (both with `points`, range with `step`), `{int: [low, high]}` or
    `{choice: [a, b]}`."""
    searcher: Annotated[Searcher, SEARCHERS] = Field(default_factory=TPE)
    """How the next point is chosen: tpe (Bayesian), gp (Bayesian, few trials over numbers), random, grid."""
    pruner: Annotated[Pruner, PRUNERS] = Field(default_factory=NoPruner)
    """Which trials are stopped early: none, median, hyperband."""
    trials: int = Field(default=20, ge=0)
    """At most this many trials; 0: only `minutes` or the end of the space decide."""
    minutes: float = Field(default=0.0, ge=0)
    """At most this many minutes of searching, all calls together; a trial that runs at the end is stopped at its next
    report, and continued if the budget is raised. 0: no limit."""
    workers: int = Field(default=1, ge=1)
    """Trials at the same time, each in a process of its own; they share processor, memory and accelerator."""
    seed: int = 0
    """Draws the points. Training keeps its own seed, so that trials differ in nothing but their settings."""
    compare_random: bool = False
    """Afterwards run as many trials of random search with the same seed, to see what the searcher brought."""
    score_test: bool = False
    """Afterwards evaluate the best settings on the test split, once; how often that was done is recorded."""
    keep_models: bool = False
    """Keep the weights of every trial, and not only of the best one."""
