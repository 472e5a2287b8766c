"""ROC-AUC and average precision with each row's first-order effect on them, and the points of the curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Area(NamedTuple):
    """An area under a curve and how it moves when a row counts a little more."""

    value: float
    effects: np.ndarray
    """float64 [n]; sums to zero."""


def roc_auc(right: np.ndarray, scores: np.ndarray) -> Area | None:
    """Chance that a positive row scores above a negative one, a tie counting half (Hanley & McNeil 1982).

    The effects are DeLong's (1988) structural components. None where only one of the two kinds of row occurs.
    """
    right = np.asarray(right, dtype=bool)
    num_positive, num_negative = int(right.sum()), int((~right).sum())
    if not num_positive or not num_negative:
        return None
    positive, negative = np.sort(scores[right]), np.sort(scores[~right])
    below = (np.searchsorted(negative, scores[right], "left") + np.searchsorted(negative, scores[right], "right")) / 2
    above = num_positive - (np.searchsorted(positive, scores[~right], "left")
                            + np.searchsorted(positive, scores[~right], "right")) / 2
    value = float(below.sum() / num_negative / num_positive)
    effects = np.empty(len(right))
    effects[right] = (below / num_negative - value) / num_positive
    effects[~right] = (above / num_positive - value) / num_negative
    return Area(value, effects)


def average_precision(right: np.ndarray, scores: np.ndarray) -> Area | None:
    """Mean precision at the score of each positive row (PR-AUC without interpolation); None without a positive row.

    Rows that share a score share a precision. Effect of row k: its own precision against the mean where it is
    positive, and what it does to the precision of every positive row that scores no higher.
    """
    right = np.asarray(right, dtype=bool)
    num_positive = int(right.sum())
    if not num_positive:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], right[order].astype(np.float64)
    last = np.searchsorted(-ranked, -ranked, "right")  # rows that score at least as high, by row
    reached = last.astype(np.float64)
    precision = np.cumsum(hits)[last - 1] / reached
    value = float((hits * precision).sum() / num_positive)
    first = np.searchsorted(-ranked, -ranked, "left")
    # Over positive rows that score no higher than row k: sums of 1/reached and of precision/reached.
    tail = np.concatenate([np.cumsum((hits / reached)[::-1])[::-1], [0.0]])
    tail_precision = np.concatenate([np.cumsum((hits * precision / reached)[::-1])[::-1], [0.0]])
    effects = np.empty(len(right))
    effects[order] = (hits * (precision - value) + hits * tail[first] - tail_precision[first]) / num_positive
    return Area(value, effects)


def over_classes(right: np.ndarray, scores: np.ndarray, area, average: str) -> Area | None:
    """One against the rest, averaged: `macro` counts classes alike, `weighted` by how often they are right.

    `right` bool [n, classes], `scores` [n, classes]; classes for which the area is undefined are left out.
    """
    found = [(c, one) for c in range(right.shape[1]) if (one := area(right[:, c], scores[:, c])) is not None]
    if not found:
        return None
    if average == "macro":
        return Area(float(np.mean([one.value for _, one in found])), np.mean([one.effects for _, one in found], 0))
    support = np.array([right[:, c].sum() for c, _ in found], dtype=np.float64)
    if not support.sum():
        return None
    share = support / support.sum()
    values = np.array([one.value for _, one in found])
    value = float(share @ values)
    effects = share @ np.stack([one.effects for _, one in found])
    for (c, _), gap in zip(found, values - value, strict=True):  # a row also moves the weights
        effects = effects + right[:, c] * gap / support.sum()
    return Area(value, effects)


def roc_points(right: np.ndarray, scores: np.ndarray, *, most: int = 100) -> list[tuple[float, float]]:
    """(false alarms, hits) as shares, from (0, 0) to (1, 1), thinned to `most` points."""
    right = np.asarray(right, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    ends = np.nonzero(np.diff(scores[order]))[0]
    ends = np.append(ends, len(order) - 1)
    hits, alarms = np.cumsum(right[order])[ends], np.cumsum(~right[order])[ends]
    x = np.concatenate([[0.0], alarms / max(alarms[-1], 1)])
    y = np.concatenate([[0.0], hits / max(hits[-1], 1)])
    keep = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    return [(float(x[i]), float(y[i])) for i in keep]
