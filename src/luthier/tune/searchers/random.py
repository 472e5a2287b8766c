"""Random search (Bergstra and Bengio 2012): hard to beat with few trials, and the yardstick for everything else."""

from __future__ import annotations

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import SEARCHERS, Point, Question
from luthier.tune.searchers._draw import drawn
from luthier.tune.space import Space


@register(SEARCHERS, "random")
class Random(Spec):
    """Points by chance; never the same twice."""

    def check(self, space: Space) -> str:
        return ""

    def suggest(self, question: Question) -> Point | None:
        return drawn(question)
