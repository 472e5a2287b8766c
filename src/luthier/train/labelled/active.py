"""Active learning: which rows without a label are worth a person's minute.

Uncertain rows (the margin between the two likeliest classes; Scheffer et al. 2001) that differ from each other:
k-means over the features of the most uncertain ones, weighted by uncertainty, and from every cluster its most uncertain
row (Zhdanov 2019, "Diverse mini-batch active learning").
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from luthier.errors import need

POOL = 10
"""The most uncertain rows that are clustered, as a multiple of the rows asked for."""
SAME = 0.98
"""Cosine from which on two rows would teach the same."""


@dataclass(frozen=True)
class Pick:
    """A chosen row."""

    at: int
    uncertainty: float
    """1 minus the margin: 1 where two classes are equally likely (multi-label: where a class is as likely as not)."""
    cluster_size: int
    """Uncertain rows that it stands for."""


def uncertainty(chances: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """float64 [rows], 0 to 1, from probabilities [rows, classes]."""
    if multi_label:
        return 1 - 2 * np.abs(chances - 0.5).min(1)
    if chances.shape[1] < 2:
        return np.zeros(len(chances))
    top = np.sort(chances, axis=1)[:, -2:]
    return 1 - (top[:, 1] - top[:, 0])


def choose(chances: np.ndarray, features: np.ndarray, count: int, *, seed: int, multi_label: bool = False
           ) -> list[Pick]:
    """At most `count` rows, the most uncertain first; none nearly repeats another.

    chances: [rows, classes]; features: float32 [rows, width].
    """
    doubt = uncertainty(chances, multi_label=multi_label)
    pool = np.argsort(-doubt, kind="stable")[: POOL * count]
    units = features[pool] / np.maximum(np.linalg.norm(features[pool], axis=1, keepdims=True), 1e-9)
    groups = min(count, len(np.unique(units.round(6), axis=0)))
    if groups == 0:
        return []
    cluster = need("sklearn.cluster", extra="train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        of = cluster.KMeans(groups, n_init=1, random_state=seed).fit_predict(units, sample_weight=doubt[pool] + 1e-6)
    sizes = np.bincount(of, minlength=groups)
    best = [int(np.flatnonzero(of == one)[0]) for one in range(groups) if sizes[one]]  # the pool is in order of doubt
    rest = [place for place in range(len(pool)) if place not in set(best)]
    taken: list[int] = []
    for place in [*sorted(best), *rest]:
        if len(taken) == count:
            break
        if not taken or float((units[taken] @ units[place]).max()) < SAME:
            taken.append(place)
    return [Pick(int(pool[place]), float(doubt[pool[place]]), int(sizes[of[place]])) for place in sorted(taken)]
