"""From votes to one belief a row: one label model, or one for every class where a row may have several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.prepare.weak import label_model
from luthier.prepare.weak.base import Source, Weak
from luthier.prepare.weak.label_model import Votes

FOLDS = 4
ENOUGH = 30
"""Rows that people labelled and sources voted on, from which on probabilities are calibrated."""

Truth = Sequence[set[str] | None]


@dataclass(frozen=True)
class Combined:
    """What is believed about every row that was asked about."""

    answers: list[tuple[str, ...] | None]
    """The likeliest label, or labels; None where nobody spoke."""
    best: list[tuple[str, ...]]
    """The same, never None."""
    sure: np.ndarray
    """float64 [rows]: probability of the answer (of several: of its least certain class)."""
    spoke: np.ndarray
    """bool [rows]: whether a source voted."""
    accuracy: np.ndarray
    """float64 [sources]: estimated share of right votes."""
    crossed: list[np.ndarray | None]
    """For each row that a person labelled: what a model says that did not know this label, [classes]."""
    majority: list[tuple[str, ...]]
    """What counting votes gives."""
    temperature: float
    multi_label: bool


def combine(sources: Sequence[Source], labels: Sequence[str], truth: Truth, *, learn: int, spec: Weak,
            multi_label: bool) -> Combined:
    """Fit on all rows. The first `learn` rows are labelled by people and may be learned from; further rows with a truth
    are validation rows: they are measured on, and calibrate, and never hold accuracies in place."""
    rows = len(truth)
    spoke = np.zeros(rows, dtype=bool)
    for source in sources:
        spoke |= np.array([bool(vote) for vote in source.votes], dtype=bool)
    if multi_label:
        return _several(sources, labels, truth, learn, spec, spoke)
    place = {label: at for at, label in enumerate(labels)}
    votes = [Votes.several(source.name, [[place[label] for label in vote] for vote in source.votes])
             for source in sources]
    human = np.array([place[next(iter(one))] if at < learn and one else -1 for at, one in enumerate(truth)], dtype=int)
    counted = label_model.majority(votes, rows, len(labels))
    if spec.combine == "majority":
        chances, accuracy = counted, _agreement(votes, counted)
        crossed = [counted[at] if one is not None else None for at, one in enumerate(truth)]
        heat = 1.0
    else:
        fitted = _fit(votes, rows, len(labels), human, spec)
        chances, accuracy = fitted.chances, fitted.accuracy
        crossed = _cross(votes, rows, len(labels), human, truth, fitted, spec)
        heat = 1.0
        told = [at for at, one in enumerate(truth) if one and spoke[at]]
        if spec.calibrate and len(told) >= ENOUGH:
            right = np.array([place[next(iter(truth[at] or ()))] for at in told])
            heat = label_model.temperature(np.stack([crossed[at] for at in told]), right)  # type: ignore[arg-type]
            chances = label_model.soften(chances, heat)
            crossed = [label_model.soften(one[None], heat)[0] if one is not None else None for one in crossed]
    best = [(labels[int(at)],) for at in chances.argmax(1)]
    return Combined([one if spoke[at] else None for at, one in enumerate(best)], best, chances.max(1), spoke, accuracy,
                    crossed, [(labels[int(at)],) for at in counted.argmax(1)], heat, False)


def _fit(votes: Sequence[Votes], rows: int, classes: int, human: np.ndarray, spec: Weak) -> label_model.Fitted:
    return label_model.fit(votes, rows, classes, human=human, human_weight=spec.human_weight, strength=spec.strength,
                           silence=spec.silence)


def _agreement(votes: Sequence[Votes], chances: np.ndarray) -> np.ndarray:
    """How far each source agrees with the counted votes."""
    return np.array([float((chances[one.rows, one.classes] * one.shares).sum() / max(one.shares.sum(), 1e-12))
                     for one in votes])


def _cross(votes: Sequence[Votes], rows: int, classes: int, human: np.ndarray, truth: Truth,
           fitted: label_model.Fitted, spec: Weak) -> list[np.ndarray | None]:
    """What is said of labelled rows by models that did not know their labels: in parts for those that were learned
    from, the model itself for the others."""
    alone = label_model.posterior(fitted, votes, silence=spec.silence)
    found: list[np.ndarray | None] = [alone[at] if one is not None else None for at, one in enumerate(truth)]
    known = np.flatnonzero(human >= 0)
    if not len(known):
        return found
    order = sorted(known, key=lambda at: hashlib.sha256(f"{spec.seed}\0{at}".encode()).digest())
    for part in range(min(FOLDS, len(order))):
        out = order[part::FOLDS]
        less = human.copy()
        less[out] = -1
        said = label_model.posterior(_fit(votes, rows, classes, less, spec), votes, silence=spec.silence)
        for at in out:
            found[at] = said[at]
    return found


def _several(sources: Sequence[Source], labels: Sequence[str], truth: Truth, learn: int, spec: Weak, spoke: np.ndarray
             ) -> Combined:
    """Each class by itself: a source that spoke says yes or no to it."""
    rows = len(truth)
    yes = np.zeros((rows, len(labels)))
    counted = np.zeros((rows, len(labels)))
    accuracy = np.zeros((len(sources), len(labels)))
    crossed: list[np.ndarray | None] = [np.zeros(len(labels)) if one is not None else None for one in truth]
    for at, label in enumerate(labels):
        votes = [Votes.single(source.name, [int(label in vote) if vote else -1 for vote in source.votes])
                 for source in sources]
        human = np.array([int(label in one) if number < learn and one is not None else -1
                          for number, one in enumerate(truth)], dtype=int)
        counted[:, at] = label_model.majority(votes, rows, 2)[:, 1]
        if spec.combine == "majority":
            yes[:, at] = counted[:, at]
            accuracy[:, at] = _agreement(votes, label_model.majority(votes, rows, 2))
            parts: Sequence[np.ndarray | None] = [np.array([1 - p, p]) for p in counted[:, at]]
        else:
            fitted = _fit(votes, rows, 2, human, spec)
            yes[:, at], accuracy[:, at] = fitted.chances[:, 1], fitted.accuracy
            parts = _cross(votes, rows, 2, human, truth, fitted, spec)
        for number, kept in enumerate(crossed):
            said = parts[number]
            if kept is not None and said is not None:
                kept[at] = said[1]
    best = [tuple(label for label, chance in zip(labels, row) if chance >= 0.5) for row in yes]
    return Combined([one if spoke[at] else None for at, one in enumerate(best)], best,
                    np.maximum(yes, 1 - yes).min(1), spoke, accuracy.mean(1), crossed,
                    [tuple(label for label, chance in zip(labels, row) if chance > 0.5) for row in counted], 1.0, True)
