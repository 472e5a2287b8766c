"""Points drawn by chance: the same for every searcher, so that searches can be compared with the same seeds."""

from __future__ import annotations

import random
from collections.abc import Iterable

from luthier.store import canonical
from luthier.tune.seams import Point, Question, Trial

REDRAWS = 1000


def seen(trials: Iterable[Trial]) -> set[str]:
    """The points that were tried, as text."""
    return {canonical(trial.point) for trial in trials}


def drawn(question: Question) -> Point | None:
    """An untried point that depends on seed and number alone; None when all were tried.

    Each field is drawn from its own stream, so adding a field leaves the others' values as they were.
    """
    tried, space = seen(question.trials), question.space
    for redraw in range(REDRAWS):
        stem = f"{question.seed}:{question.number}:{redraw}"
        point = space.fill(lambda axis: axis.dimension.at(random.Random(f"{stem}:{axis.path}").random()))  # noqa: B023
        if canonical(point) not in tried:
            return point
    if space.size is None:
        return None
    left = [point for point in space.grid() if canonical(point) not in tried]
    return random.Random(f"{question.seed}:{question.number}").choice(left) if left else None
