"""How much the order of tasks mattered: several orders' final answers to the same rows, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SAMPLES = 2000


def compare_orders(right: Mapping[str, np.ndarray], tasks: np.ndarray, *, chosen: str, again: str, seed: int
                   ) -> dict[str, Any]:
    """right: by order, 1 or 0 for every row [rows] after its last task, `again` being the chosen order with another
    seed; tasks int [rows]: each row's task. Every task counts alike.

    An order mattered where the orders lie further apart than chance explains. Chance is both: shuffling the orders'
    answers within every row (a permutation test, 5 %), and what another seed changes for the same order. The interval
    of the best order's lead over the worst is a paired bootstrap over rows.
    """
    names = [name for name in right if name != again]
    rows = np.isfinite(np.stack([*right.values()])).all(0)
    values = np.stack([right[name][rows] for name in names])
    tasks = tasks[rows]
    weights = _weights(tasks)
    scores = values @ weights
    best, worst = int(scores.argmax()), int(scores.argmin())
    reach = float(scores[best] - scores[worst])
    rng = np.random.default_rng([seed, 22])
    shuffled = np.array([np.ptp(rng.permuted(values, axis=0) @ weights) for _ in range(SAMPLES)])
    low, high = _lead(values[best] - values[worst], tasks, rng)
    by_seed = float(abs(right[again][rows] @ weights - scores[names.index(chosen)]))
    limit = float(np.quantile(shuffled, 0.95))
    mattered = bool(reach > limit and reach > by_seed)
    return {"orders": {name: round(float(score), 6) for name, score in zip(names, scores)}, "chosen": chosen,
            "best": names[best], "worst": names[worst], "range": round(reach, 6), "low": round(low, 6),
            "high": round(high, 6), "chance": round(limit, 6), "other_seed": round(by_seed, 6), "n": int(rows.sum()),
            "mattered": mattered, "sentence": _sentence(names, scores, names.index(chosen), reach, by_seed, mattered)}


def _weights(tasks: np.ndarray) -> np.ndarray:
    """float64 [rows], summing to 1: every task alike."""
    counts = np.bincount(tasks)
    return 1 / (counts[tasks] * (counts > 0).sum())


def _lead(difference: np.ndarray, tasks: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean over tasks of a difference [rows], rows drawn within their tasks."""
    draws = np.zeros(SAMPLES)
    present = np.unique(tasks)
    for task in present:
        mine = difference[tasks == task]
        draws += mine[rng.integers(len(mine), size=(SAMPLES, len(mine)))].mean(1) / len(present)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _sentence(names: Sequence[str], scores: np.ndarray, chosen: int, reach: float, by_seed: float,
              mattered: bool) -> str:
    figures = (f"{len(names)} orders ended between {scores.min():.3f} and {scores.max():.3f} average accuracy (the one "
               f"taken: {scores[chosen]:.3f}; the same order with another seed differs by {by_seed:.3f})")
    return f"The order mattered: {figures}." if mattered else f"The order did not measurably matter: {figures}."
