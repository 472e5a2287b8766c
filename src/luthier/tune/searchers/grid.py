"""Grid search with its own enumerator: every point once, whatever the number of workers and however often it was
killed (Optuna's repeats points in parallel and shuffles without a seed)."""

from __future__ import annotations

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import SEARCHERS, Point, Question
from luthier.tune.searchers._draw import seen
from luthier.tune.space import MOST_POINTS, Space


@register(SEARCHERS, "grid")
class Grid(Spec):
    """Every combination once, in an order shuffled by the seed, so that a search cut short has seen all regions."""

    shuffle: bool = True
    """Off: in the order of the fields and their values."""

    def check(self, space: Space) -> str:
        endless = space.endless()
        if endless:
            return (f"a grid needs a finite number of values: add points (log, range) or step (range) to "
                    f"{', '.join(endless)}")
        if space.size is None:
            return f"the grid has more than {MOST_POINTS:,} points; name fewer values or use searcher: random"
        return ""

    def suggest(self, question: Question) -> Point | None:
        tried = seen(question.trials)
        points = question.space.order(question.seed if self.shuffle else None)
        return next((point for key, point in points if key not in tried), None)
