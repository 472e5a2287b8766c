"""Reciprocal rank fusion: one ranking out of several whose scores cannot be compared.

score(d) = Σ over rankings r of 1 / (k + rank_r(d)), ranks from 1, a ranking without d adding nothing (Cormack, Clarke,
Büttcher 2009, who take k = 60). Ranks (1, 2) and (2, 1) tie often, so who breaks ties matters: the first ranking does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def fuse(rankings: Sequence[Sequence[int]], *, constant: int = 60) -> list[tuple[int, float]]:
    """Items with their fused scores, best first; of equal scores the one that an earlier ranking puts higher."""
    ranks = [{item: rank for rank, item in enumerate(ranking, start=1)} for ranking in rankings]
    items = dict.fromkeys(item for ranking in rankings for item in ranking)
    # fsum: the same ranks in another order give exactly the same score, hence a tie
    scores = {item: math.fsum(1.0 / (constant + of[item]) for of in ranks if item in of) for item in items}
    return sorted(scores.items(), key=lambda pair: (-pair[1], [of.get(pair[0], math.inf) for of in ranks]))
