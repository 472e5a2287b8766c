"""How often search finds what a question was made from: recall@k and MRR, each with n and a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from luthier.index.base import Mode, Retriever

Z = 1.959963984540054  # the normal distribution's 97.5 % point


def recall(retriever: Retriever, queries: Sequence[str], relevant: Sequence[Collection[str]], *,
           at: Sequence[int] = (1, 3, 5, 10), mode: Mode | None = None, seed: int = 0
           ) -> dict[str, dict[str, Any]]:
    """Search `queries` and compare with the ids of their `relevant` passages.

    Gives `recall@k` for every k of `at`, the share of questions with a relevant passage among the first k (questions
    mostly have one; with several, any counts), with Wilson's interval (Wilson 1927), and `mrr@K` for the largest k,
    the mean of 1 / rank of the first relevant passage (0 beyond K), with a percentile bootstrap of 2,000 resamples.
    Questions without relevant passages are left out of n. Values are None when n is 0.
    """
    if len(queries) != len(relevant):
        raise ValueError(f"{len(queries)} queries but {len(relevant)} sets of relevant passages")
    asked = [(query, set(ids)) for query, ids in zip(queries, relevant) if ids]
    deepest = max(at)
    found = retriever.search([query for query, _ in asked], deepest, mode=mode)
    ranks = [next((hit.rank for hit in hits if hit.passage.id in ids), None) for hits, (_, ids) in zip(found, asked)]
    n = len(ranks)
    result: dict[str, dict[str, Any]] = {}
    for k in at:
        hits = sum(rank is not None and rank <= k for rank in ranks)
        low, high = wilson(hits, n)
        result[f"recall@{k}"] = {"value": hits / n if n else None, "low": low, "high": high, "n": n}
    scores = np.array([0.0 if rank is None else 1.0 / rank for rank in ranks])
    low, high = bootstrap_mean(scores, seed=seed)
    result[f"mrr@{deepest}"] = {"value": float(scores.mean()) if n else None, "low": low, "high": high, "n": n}
    return result


def wilson(hits: int, n: int, z: float = Z) -> tuple[float | None, float | None]:
    """Wilson's score interval of a share of `hits` in `n`; (None, None) for n = 0."""
    if n == 0:
        return None, None
    share = hits / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_mean(values: np.ndarray, *, seed: int, resamples: int = 2000) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of `values` [n]; (None, None) for n = 0."""
    n = len(values)
    if n == 0:
        return None, None
    random = np.random.default_rng(seed)
    means = np.array([values[random.integers(0, n, n)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
