"""What strategies that choose rows stand on: frozen features, a quick classifier over them, and the guard.

The guard answers one question before anything expensive is trained: do the unlabelled rows help on held-out rows?
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from luthier.adapt import predict
from luthier.adapt.network import LabelModel
from luthier.errors import DataError, SpecError, need
from luthier.prepare.base import TOGETHER
from luthier.prepare.label_repeats import UNLABELLED
from luthier.train.labelled.base import Job
from luthier.train.labelled.noise import split_folds
from luthier.train.labelled.warm import arrays
from luthier.types import Example

MANY = 3000
"""Labelled rows from which on one fold is held out instead of each in turn."""


@dataclass(frozen=True)
class Space:
    """The rows of a job as features of the untouched base model."""

    model: LabelModel
    x: np.ndarray
    """float32 [labelled rows, width]"""
    y: np.ndarray
    """int [labelled rows]; float32 0/1 [labelled rows, classes] where several labels may apply"""
    weights: np.ndarray
    u: np.ndarray
    """float32 [unlabelled rows, width]"""
    groups: list[str]
    """What must not be divided, by labelled row; empty for a row by itself."""


def space_of(job: Job, *, who: str, unlabelled: bool = True) -> Space:
    """Compute the features (kept in the store). SpecError where the task has no classes; DataError without unlabelled
    rows where they are needed."""
    model = job.open(job.seed)
    if model.task.type not in ("classify", "image"):
        raise SpecError(f"train.strategy: '{who}' is for the tasks classify and image, not '{model.task.type}'")
    if unlabelled and model.task.multi_label:
        raise SpecError(f"train.strategy: '{who}' is for rows with one label each; task.multi_label is true")
    if unlabelled and not job.unlabelled:
        raise DataError(f"train.strategy: '{who}' learns from rows without a label, and the data has none; add rows "
                        "with an empty label, a maker with unlabelled: true, or remove the strategy")
    rows = [*model.rows(job.train), *(model.rows(job.unlabelled, targets=False) if unlabelled else [])]
    found = predict.features(model, rows, cache=job.cache, progress=job.progress, what="features")
    y, weights = arrays(rows[: len(job.train)], multi_label=model.task.multi_label)
    return Space(model, found[: len(job.train)], y, weights, found[len(job.train):], [group_of(e) for e in job.train])


def group_of(example: Example) -> str:
    """What a row must stay together with; empty for a row by itself."""
    documents = example.origin.documents
    return example.groups.get(TOGETHER, "") or (f"document={documents[0]}" if documents else "")


class Quick:
    """A logistic regression that begins where the last one ended; good enough to choose rows, not to be released."""

    def __init__(self, classes: int, *, strength: float = 1.0):
        linear_model: Any = need("sklearn.linear_model", extra="train")
        self.classes = classes
        self.model = linear_model.LogisticRegression(C=strength, tol=1e-3, max_iter=100, warm_start=True)

    def fit(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Quick:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 100 iterations are enough to choose rows
            self.model.fit(x, y, sample_weight=weights)
        return self

    def chances(self, x: np.ndarray) -> np.ndarray:
        """float64 [rows, classes]; 0 for a class that no row had."""
        found = np.zeros((len(x), self.classes))
        if len(x):
            found[:, self.model.classes_] = self.model.predict_proba(x)
        return found


Rounds = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Sequence[np.ndarray]]
"""(x, y, weights, probe) → probabilities [probe rows, classes] after each round; the first is supervised."""


def guard(space: Space, rounds: Rounds, *, folds: int, seed: int, ask: bool = True) -> dict[str, Any]:
    """How many rounds help rows that were held out, and by how much.

    Labelled rows are held out fold by fold (one fold alone from 3,000 rows on), everything is done without them, and
    the round with the most right answers wins; 0, supervised, where none has more. `ask=False`: all rounds, unchecked.
    """
    if not ask:
        return {"checked": False, "rounds": None, "sentence": "The unlabelled rows were used without a check."}
    scarce = int(np.bincount(space.y).max(initial=0)) < 2
    parts = [] if scarce else split_folds(space.y, folds=folds, seed=seed, groups=space.groups)
    parts = parts[:1] if len(space.y) > MANY else parts
    right: list[np.ndarray] = []
    for held in parts:
        rest = np.setdiff1d(np.arange(len(space.y)), held)
        if len(np.unique(space.y[rest])) < 2:
            continue
        found = rounds(space.x[rest], space.y[rest], space.weights[rest], space.x[held])
        right.append(np.stack([chances.argmax(1) == space.y[held] for chances in found]))
    if not right:
        return {"checked": False, "rounds": None, "sentence": "No class has two labelled rows, so none could be held "
                "out to check whether the unlabelled rows help; label a few more."}
    scores = np.concatenate(right, axis=1)
    means = scores.mean(1)
    best = int(means.argmax())  # the first of equals: the fewest rounds
    shown = best or int(means[1:].argmax()) + 1
    gain = scores[shown].astype(float) - scores[0]
    figures = f"{means[0]:.3f} → {means[shown]:.3f} on {scores.shape[1]:,} held-out labelled rows"
    sentence = (f"The unlabelled rows help: accuracy {figures}; {best} rounds kept." if best else
                f"The unlabelled rows do not help (accuracy {figures}), so the model was trained on the labelled rows "
                "alone.")
    return {"checked": True, "rounds": best, "fell_back": best == 0, "supervised": float(means[0]),
            "by_round": [float(value) for value in means], "gain": float(gain.mean()),
            "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else None,
            "n": int(scores.shape[1]), "folds": len(parts), "sentence": sentence}


def some(number: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `number` places, drawn evenly, in order."""
    if number <= most:
        return np.arange(number)
    return np.sort(np.random.default_rng([seed, 6]).permutation(number)[:most])


def as_pseudo(example: Example, label: str, *, step: str, weight: float, **changes: Any) -> Example:
    """A row without a label as one that a model labelled; its origin says so."""
    tags = tuple(tag for tag in example.tags if tag != UNLABELLED)
    return replace(example, labels=(label,), weight=example.weight * weight, tags=(*tags, "pseudo"),
                   origin=replace(example.origin, maker="pseudo", step=step), **changes)
