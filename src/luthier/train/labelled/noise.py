"""Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels").

A label is suspected where a model that never saw the row is confident of another class: as confident as it is on
average for rows that carry that class. Probabilities must be out of fold, or the model would only repeat the label.
The counts and the choice agree with cleanlab 2.9 (`compute_confident_joint`, `find_label_issues`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Method = Literal["noise_rate", "confident"]
STRENGTHS = (0.1, 1.0)
"""Inverse L2 strengths that are tried."""


def thresholds(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Mean probability of each class over the rows that carry it [classes]; 2 (never reached) for a class without."""
    return np.array([max(float(chances[labels == k, k].mean()), 2e-6) if (labels == k).any() else 2.0
                     for k in range(chances.shape[1])])


def confident_class(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """The class that each row confidently belongs to, -1 where there is none. int [rows]"""
    reached = chances >= thresholds(labels, chances) - 1e-6
    several = reached.sum(1) > 1
    found = np.where(several, chances.argmax(1), reached.argmax(1))
    return np.where(reached.any(1), found, -1)


def confident_joint(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Estimated rows by given label (down) and true label (across), int [classes, classes]; every line sums to the
    number of rows that carry its label."""
    classes = chances.shape[1]
    true = confident_class(labels, chances)
    joint = np.zeros((classes, classes), order="F")  # cleanlab's order of summation: ties then round alike
    np.add.at(joint, (labels[true >= 0], true[true >= 0]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    counts = np.bincount(labels, minlength=classes)
    scaled = (joint.T / joint.sum(1).clip(min=1e-100) * counts).T
    return np.array([_whole(line) for line in scaled / max(scaled.sum(), 1e-100) * counts.sum()])


def suspects(labels: np.ndarray, chances: np.ndarray, *, method: Method = "noise_rate") -> np.ndarray:
    """Places of the rows whose label is probably wrong, the least believable first.

    labels: int [rows], the given ones; chances: float [rows, classes], out of fold. `confident` takes every row that
    is confidently of another class; `noise_rate` takes, for each pair of classes, as many rows as the joint estimates,
    those with the largest margin.
    """
    if method == "confident":
        true = confident_class(labels, chances)
        found = (true >= 0) & (true != labels)
    else:
        found = _by_noise_rate(labels, chances)
    found &= chances.argmax(1) != labels
    places = np.flatnonzero(found)
    return places[np.argsort(chances[places, labels[places]], kind="stable")]


def _by_noise_rate(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels, minlength=chances.shape[1])
    wanted = _leave_one(confident_joint(labels, chances).T)  # true label down, given label across
    found = np.zeros(len(labels), dtype=bool)
    for true in np.flatnonzero(counts > 1):
        for given in np.flatnonzero(wanted[true]):
            if given != true:
                margin = chances[:, true] - chances[:, given]
                own = labels == given
                number = min(wanted[true, given], int(own.sum()))
                limit = -np.partition(-margin[own], number - 1)[number - 1]
                found |= own & (margin >= limit)
    return found


def _leave_one(counts: np.ndarray) -> np.ndarray:
    """Counts in which at least one row of every class is right; the other entries shrink for it."""
    diagonal = np.diagonal(counts)
    raised = np.maximum(diagonal, 1)
    spread = np.maximum(np.count_nonzero(counts, axis=0) - 1.0, 1.0)
    changed = np.maximum(counts - (raised - diagonal) / spread, 0)
    np.fill_diagonal(changed, raised)
    return np.array([_whole(line) for line in changed])


def _whole(values: np.ndarray) -> np.ndarray:
    """Whole numbers near `values` that keep their sum: the largest roundings give way first."""
    whole = values.round()
    while abs(difference := round(float(values.sum().round() - whole.sum()))) > 0:
        step = 1 if difference > 0 else -1
        order = np.argsort(values - whole)[::-step][: min(abs(difference), len(values))]
        whole[order] += step
    return whole.astype(int)


def out_of_fold(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, num_outputs: int, folds: int,
                seed: int, multi_label: bool = False, groups: Sequence[str] | None = None) -> np.ndarray:
    """Probabilities float64 [rows, classes] of a logistic regression that did not see the row (nor its group).

    Of the L2 strengths the one with the lowest out-of-fold loss is taken: with wrong labels about, a weak one learns
    them by heart. A class with fewer rows than folds is missing from some folds, which then give it nearly no
    probability.
    """
    from luthier.adapt.predict import probabilities
    from luthier.train.labelled.score import score_labels
    from luthier.train.labelled.warm import logistic_regression

    parts = split_folds(targets, folds=folds, seed=seed, groups=groups)
    best: tuple[float, np.ndarray] | None = None
    for strength in STRENGTHS:
        logits = np.zeros((len(targets), num_outputs))
        for held in parts:
            rest = np.setdiff1d(np.arange(len(targets)), held)
            weight, bias = logistic_regression(features[rest], targets[rest], weights[rest], num_outputs=num_outputs,
                                               multi_label=multi_label, strength=strength)
            logits[held] = features[held] @ weight.T + bias
        loss = score_labels("log_loss", targets, logits, multi_label=multi_label)
        if best is None or loss < best[0]:
            best = (loss, probabilities(logits, multi_label=multi_label))
    assert best is not None
    return best[1]


def split_folds(targets: np.ndarray, *, folds: int, seed: int, groups: Sequence[str] | None = None
                ) -> list[np.ndarray]:
    """Places of the rows of each fold: classes spread evenly, groups kept together. Every row is in one fold."""
    rng = np.random.default_rng([seed, 5])
    codes = targets if targets.ndim == 1 else _rarest(targets)
    units: dict[str, list[int]] = {}
    for at in rng.permutation(len(codes)):
        named = groups[int(at)] if groups is not None else ""
        units.setdefault(named or f"\0{at}", []).append(int(at))
    classes: dict[int, np.ndarray] = {}
    sizes = np.zeros(folds)
    found: list[list[int]] = [[] for _ in range(folds)]
    for members in sorted(units.values(), key=lambda members: -len(members)):
        counts = classes.setdefault(int(codes[members[0]]), np.zeros(folds))
        fold = min(range(folds), key=lambda fold: (counts[fold], sizes[fold], fold))
        found[fold] += members
        counts[fold] += len(members)
        sizes[fold] += len(members)
    return [np.sort(np.array(part, dtype=int)) for part in found if part]


def _rarest(targets: np.ndarray) -> np.ndarray:
    """The rarest class of each row of 0/1 targets [rows, classes]; -1 for a row without one."""
    counts = np.maximum(targets.sum(0), 1)
    rarity = np.where(targets > 0.5, 1 / counts, 0)
    return np.where(rarity.max(1) > 0, rarity.argmax(1), -1)
