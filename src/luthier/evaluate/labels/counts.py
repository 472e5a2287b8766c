"""Precision, recall, F1 and Matthews' correlation from counts, for one data set or for all bootstrap draws at once.

Arrays end in the axis of classes: `hit` (right and said), `right` (support) and `said`, float64 [..., classes]. Means
are taken over the classes that occur, right or said, as scikit-learn does when no labels are named; a ratio whose
denominator is zero counts 0 (`zero_division=0`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Average = Literal["macro", "micro", "weighted"]
Which = Literal["precision", "recall", "f1"]


class Counts(NamedTuple):
    """Rows by class; any leading axes."""

    hit: np.ndarray
    right: np.ndarray
    said: np.ndarray


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom != 0)


def per_class(counts: Counts, which: Which) -> np.ndarray:
    """[..., classes]: the measure of each class by itself."""
    if which == "precision":
        return ratio(counts.hit, counts.said)
    if which == "recall":
        return ratio(counts.hit, counts.right)
    return ratio(2 * counts.hit, counts.right + counts.said)


def averaged(counts: Counts, which: Which, average: Average) -> np.ndarray:
    """[...]: one figure over the classes."""
    if average == "micro":
        return per_class(Counts(*(one.sum(-1, keepdims=True) for one in counts)), which)[..., 0]
    each = per_class(counts, which)
    if average == "weighted":
        return ratio((each * counts.right).sum(-1), counts.right.sum(-1))
    occurs = (counts.right + counts.said) > 0
    return ratio((each * occurs).sum(-1), occurs.sum(-1).astype(float))


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall of the classes that occur as right answers (Brodersen et al. 2010)."""
    occurs = counts.right > 0
    return ratio((per_class(counts, "recall") * occurs).sum(-1), occurs.sum(-1).astype(float))


def mcc(counts: Counts, rows: np.ndarray | float) -> np.ndarray:
    """Matthews' correlation for any number of classes (Gorodkin 2004), one class a row; `rows`: how many rows [...]."""
    hits, total = counts.hit.sum(-1), np.asarray(rows, dtype=np.float64)
    both = (counts.right * counts.said).sum(-1)
    spread = (total**2 - (counts.said**2).sum(-1)) * (total**2 - (counts.right**2).sum(-1))
    return ratio(hits * total - both, np.sqrt(np.maximum(spread, 0)))


def mean_binary_mcc(counts: Counts, rows: np.ndarray | float) -> np.ndarray:
    """Matthews' correlation of each label's yes/no decision (1975), averaged over the labels."""
    total = np.asarray(rows, dtype=np.float64)[..., None]
    hit, right, said = counts
    top = hit * total - right * said
    return ratio(top, np.sqrt(right * (total - right) * said * (total - said))).mean(-1)


def mean_binary_balanced(counts: Counts, rows: np.ndarray | float) -> np.ndarray:
    """Mean of sensitivity and specificity of each label, averaged over the labels that occur both ways."""
    total = np.asarray(rows, dtype=np.float64)[..., None]
    hit, right, said = counts
    absent = total - right
    each = (ratio(hit, right) + ratio(absent - (said - hit), absent)) / 2
    both = (right > 0) & (absent > 0)
    return ratio((each * both).sum(-1), both.sum(-1).astype(float))


def confusion(right: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """int64 [right class, said class]."""
    return np.bincount(right * classes + said, minlength=classes * classes).reshape(classes, classes)
