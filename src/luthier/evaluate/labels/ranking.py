"""Ranking measures per query, from the places at which matching texts came."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Places = Sequence[np.ndarray]
"""Per query: 0-based places of its matching texts, ascending; at least one."""


def places(scores: np.ndarray, relevant: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Places of the matching candidates; `scores` [queries, candidates], equal scores in order of the candidates."""
    found = []
    for row, wanted in zip(scores, relevant, strict=True):
        own = row[list(wanted)]
        order = np.arange(len(row))
        ahead = [int((row > score).sum() + ((row == score) & (order < at)).sum())
                 for at, score in zip(wanted, own, strict=True)]
        found.append(np.sort(np.array(ahead, dtype=np.int64)))
    return found


def recall(places: Places, k: int) -> np.ndarray:
    """float64 [queries]: share of the matching texts among the first k."""
    return np.array([(one < k).mean() for one in places], dtype=np.float64)


def mrr(places: Places, k: int) -> np.ndarray:
    """float64 [queries]: 1 / place of the first matching text, counted from 1; 0 beyond k."""
    return np.array([1 / (one[0] + 1) if one[0] < k else 0.0 for one in places], dtype=np.float64)


def ndcg(places: Places, k: int) -> np.ndarray:
    """float64 [queries]: gain 1/log2(place + 1) of the matching texts among the first k, over the best possible."""
    return np.array([
        (1 / np.log2(one[one < k] + 2)).sum() / (1 / np.log2(np.arange(min(len(one), k)) + 2)).sum()
        for one in places], dtype=np.float64)


def map(places: Places, k: int) -> np.ndarray:
    """float64 [queries]: mean precision at each matching text among the first k, over min(k, how many there are)."""
    return np.array([
        ((np.arange(len(top)) + 1) / (top + 1)).sum() / min(len(one), k)
        for one in places for top in [one[one < k]]], dtype=np.float64)
