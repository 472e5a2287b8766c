"""Do probabilities mean what they say? Calibration error, the reliability table, and temperature scaling.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017): one temperature, fitted on validation rows, divides
the logits; it changes no decision. Nixon et al. (2019) for bins that hold equally many rows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Bins = Literal["equal_width", "equal_mass"]
COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures are kept within this range: logits that separate the validation rows would be scaled without end."""


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean confidence of the rows in the bin."""
    accuracy: float
    """Share of them that are right."""

    def dump(self) -> dict[str, Any]:
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 probabilities over the last axis."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """float64 probability of each label by itself, without overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def probabilities(logits: np.ndarray, multi_label: bool, temperature: float = 1.0) -> np.ndarray:
    """float64 [n, classes] of logits divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return sigmoid(scaled) if multi_label else softmax(scaled)


def bin_of(confidence: np.ndarray, bins: int, kind: Bins) -> np.ndarray:
    """int64 [n]: the bin of each row. Equal width: (0, 1/b], (1/b, 2/b] …; equal mass: by rank, ties in order."""
    confidence = np.asarray(confidence, dtype=np.float64)
    if kind == "equal_width":
        return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    found = np.empty(len(confidence), dtype=np.int64)
    found[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // max(len(confidence), 1)
    return found


def reliability(confidence: np.ndarray, hits: np.ndarray, *, bins: int = 15, kind: Bins = "equal_width") -> list[Bin]:
    """The bins that hold rows, lowest confidence first; `confidence` and `hits` (0/1) have one value per decision."""
    place = bin_of(confidence, bins, kind)
    found = []
    for b in range(bins):
        here = place == b
        if here.any():
            low, high = (b / bins, (b + 1) / bins) if kind == "equal_width" else \
                (float(confidence[here].min()), float(confidence[here].max()))
            found.append(Bin(low, high, int(here.sum()), float(confidence[here].mean()), float(hits[here].mean())))
    return found


def calibration_error(confidence: np.ndarray, hits: np.ndarray, *, bins: int = 15, kind: Bins = "equal_width") -> float:
    """ECE: mean distance of confidence and accuracy over the bins, weighted by their rows; 0 is perfect."""
    table = reliability(confidence, hits, bins=bins, kind=kind)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in table) / max(len(confidence), 1)


def decisions(right: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, hits) of what calibration is judged on.

    `right` int [n]: the likeliest class of each row. `right` bool [n, classes]: every label of every row, where the
    confidence is the label's probability and the hit whether it applies.
    """
    if right.ndim == 2:
        return probs.ravel().astype(np.float64), right.ravel().astype(np.float64)
    said = probs.argmax(1)
    return probs[np.arange(len(said)), said].astype(np.float64), (said == right).astype(np.float64)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, multi_label: bool = False) -> float:
    """The temperature that makes the targets likeliest: a safeguarded Newton iteration on one convex scalar problem.

    `logits` [n, classes]; `targets` int [n], or 0/1 [n, classes] with `multi_label`. The loss is convex in the inverse
    temperature b: its slope is the mean of b-weighted logits minus the target's, its curvature their variance. Targets
    are softened by one row in n + 2 (Platt 1999), or n rows that are all right would make every answer certain.
    Returns 1.0 for no rows; an end of the allowed range where every row is wrong.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not logits.size:
        return 1.0
    soft = 1 / (len(logits) + 2)
    if multi_label:
        wanted = np.asarray(targets, dtype=np.float64) * (1 - 2 * soft) + soft

        def slopes(b: float) -> tuple[float, float]:
            p = sigmoid(b * logits)
            return float(((p - wanted) * logits).sum()), float((p * (1 - p) * logits**2).sum())
    else:
        told = (1 - soft) * logits[np.arange(len(logits)), np.asarray(targets, dtype=np.int64)]
        told += soft * logits.mean(1)

        def slopes(b: float) -> tuple[float, float]:
            p = softmax(b * logits)
            mean = (p * logits).sum(1)
            return float((mean - told).sum()), float(((p * logits**2).sum(1) - mean**2).sum())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slopes(low)[0] >= 0:
        return HOTTEST
    if slopes(high)[0] <= 0:
        return COLDEST
    b = 1.0
    for _ in range(200):
        first, second = slopes(b)
        low, high = (b, high) if first < 0 else (low, b)
        step = b - first / second if second > 0 else -1.0
        new = step if low < step < high else math.sqrt(low * high)  # Newton, or halve the range on a log scale
        if abs(new - b) < 1e-12 * b:
            break
        b = new
    return 1 / b
