"""From probabilities to decisions: thresholds by cost, abstention, and inputs that belong to no class.

Chow (1970) for the cost of abstaining: answer when the likeliest class is at least 1 − abstain/wrong likely. Elkan
(2001) for two sides of an error: say yes at false_positive / (false_positive + false_negative). Both rules hold for
perfect probabilities; fitted thresholds are those that cost least on the validation rows, whatever the calibration.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from luthier.evaluate.labels.base import Costs


class Curve(NamedTuple):
    """Selective answering: only the most confident rows are answered."""

    coverage: np.ndarray
    """float64 [n]: share of the rows answered, ascending."""
    accuracy: np.ndarray
    """float64 [n]: share of the answered rows that are right."""
    threshold: np.ndarray
    """float64 [n]: lowest confidence answered."""
    aurc: float
    """Area under risk and coverage: mean share of wrong answers over all coverages, 0 is best (Geifman 2017)."""
    best_aurc: float
    """What an ordering that puts all right answers first would reach with as many right answers."""


def abstention_curve(confidence: np.ndarray, hits: np.ndarray) -> Curve:
    """`confidence` and `hits` (0/1), [n]; rows of equal confidence are answered together."""
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], hits[order].astype(np.float64)
    count = np.arange(1, len(ranked) + 1)
    ends = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    accuracy = (np.cumsum(right) / count)[ends]
    width = np.diff(np.concatenate([[0], count[ends]]))
    best = np.cumsum(np.sort(hits.astype(np.float64))[::-1]) / count
    return Curve(count[ends] / len(ranked), accuracy, ranked[ends],
                 float(((1 - accuracy) * width).sum() / len(ranked)), float((1 - best).mean()))


class Cut(NamedTuple):
    """A threshold and what deciding by it costs a row."""

    threshold: float
    cost: float


def chow(costs: Costs) -> float:
    """The confidence below which abstaining is cheaper than answering, for calibrated probabilities."""
    return max(0.0, 1 - costs.abstain / costs.wrong)


def abstain_cost(confidence: np.ndarray, hits: np.ndarray, threshold: float, costs: Costs) -> float:
    """Mean cost of a row when rows below the threshold are left to a person."""
    answered = confidence >= threshold
    return float(np.where(answered, costs.wrong * (1 - hits), costs.abstain).mean())


def fit_abstain(confidence: np.ndarray, hits: np.ndarray, costs: Costs) -> Cut:
    """The cheapest threshold on these rows; 0 (always answer) where nothing is cheaper, the lowest of equals."""
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], 1.0 - hits[order]
    answered = np.concatenate([[0], np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1) + 1])
    total = np.concatenate([[0.0], np.cumsum(wrong)])[answered] * costs.wrong
    total = (total + (len(ranked) - answered) * costs.abstain) / len(ranked)
    best = len(total) - 1 - int(total[::-1].argmin())
    if answered[best] == len(ranked):
        return Cut(0.0, float(total[best]))
    return Cut(_between(ranked, int(answered[best])), float(total[best]))


def yes_no_cost(right: np.ndarray, scores: np.ndarray, threshold: float, costs: Costs) -> float:
    """Mean cost of saying yes at the threshold."""
    said = scores >= threshold
    return float((costs.false_positive * (said & ~right) + costs.false_negative * (~said & right)).mean())


def fit_yes_no(right: np.ndarray, scores: np.ndarray, costs: Costs) -> Cut:
    """The threshold for yes that costs least on these rows; of equal ones the one nearest to Elkan's rule."""
    rule = costs.false_positive / (costs.false_positive + costs.false_negative)
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], right[order].astype(bool)
    said = np.concatenate([[0], np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1) + 1])
    alarms = np.concatenate([[0], np.cumsum(~positive)])[said]
    missed = positive.sum() - np.concatenate([[0], np.cumsum(positive)])[said]
    total = (costs.false_positive * alarms + costs.false_negative * missed) / len(ranked)
    places = np.flatnonzero(total <= total.min() + 1e-12)
    cuts = [_between(ranked, int(said[place])) for place in places]
    ranges = [(ranked[count] if count < len(ranked) else 0.0, ranked[count - 1] if count else 1.0)
              for count in said[places]]
    fitting = [min(max(rule, np.nextafter(low, 2)), high) for low, high in ranges]
    best = min(range(len(cuts)), key=lambda at: (abs(fitting[at] - rule), at))
    inside = ranges[best][0] < rule <= ranges[best][1]
    return Cut(float(rule if inside else cuts[best]), float(total.min()))


def _between(ranked: np.ndarray, count: int) -> float:
    """A threshold that the first `count` of the ranked scores reach and the others do not."""
    if count == 0:
        return float(min(1.0, np.nextafter(ranked[0], 2)))
    if count == len(ranked):
        return 0.0
    return float((ranked[count - 1] + ranked[count]) / 2)


def scope_scores(logits: np.ndarray, probs: np.ndarray, temperature: float, features: np.ndarray | None = None,
                 centres: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """How surely a row belongs to one of the classes, by four rules; [n] each, higher is surer.

    max_probability (Hendrycks & Gimpel 2017), margin of the two likeliest, energy (Liu et al. 2020: log-sum-exp of the
    logits), and closeness of the features to the nearest class centre (cosine), where features are at hand.
    """
    ranked = np.sort(probs, 1)
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(1)
    found = {"max_probability": ranked[:, -1], "margin": ranked[:, -1] - (ranked[:, -2] if ranked.shape[1] > 1 else 0),
             "energy": top + np.log(np.exp(scaled - top[:, None]).sum(1))}
    if features is not None and centres is not None:
        found["centre"] = (unit(features) @ unit(centres).T).max(1)
    return found


def class_centres(features: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """float64 [classes with rows, width]: mean of the unit features of each class."""
    rows = unit(features)
    return np.stack([rows[targets == c].mean(0) for c in range(classes) if (targets == c).any()])


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def thin(curve: Curve, most: int = 60) -> list[dict[str, Any]]:
    """A few points of the curve, evenly over the coverage, for the report."""
    wanted = np.unique(np.clip(np.searchsorted(curve.coverage, np.linspace(1 / most, 1, most)), 0,
                               len(curve.coverage) - 1))
    return [{"coverage": round(float(curve.coverage[i]), 5), "accuracy": round(float(curve.accuracy[i]), 5),
             "threshold": round(float(curve.threshold[i]), 5)} for i in wanted]
