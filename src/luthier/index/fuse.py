"""Reciprocal rank fusion: one ranking out of several whose scores cannot be compared.

score(d) = Σ over rankings r of 1 / (k + rank_r(d)), ranks from 1, a ranking without d adding nothing (Cormack, Clarke,
Büttcher 2009, who take k = 60).
"""

from __future__ import annotations

from collections.abc import Sequence


def fuse(rankings: Sequence[Sequence[int]], *, constant: int = 60) -> list[tuple[int, float]]:
    """Items with their fused scores, best first; equal scores keep the order of the item numbers."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (constant + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
