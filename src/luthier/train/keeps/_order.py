"""Orders in which rows enter a store: by lot, and by turns of their classes.

A row's lot depends on its id alone (and on the store's seed), and so does its turn within its class, once its value is
given: who stays does not depend on the order of the rows, nor on how many trainings they came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def lots(ids: Sequence[str], seed: int) -> np.ndarray:
    """A number from 0 to 1 for each id, evenly spread, drawn by hash. float64 [rows]"""
    found = [int.from_bytes(hashlib.sha256(f"{seed}\x1f{id}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
             for id in ids]
    return np.array(found, dtype=np.uint64) / 2.0**64


def by_turns(classes: np.ndarray, values: np.ndarray, drawn: np.ndarray, size: int) -> list[int]:
    """At most `size` places, ascending: every class sends its row with the smallest value, then every class its next
    one, and so on, so that the classes' numbers differ by at most one where they have the rows. In the last turn, and
    among equal values, the lots that were `drawn` decide. classes int, values and drawn float [rows]."""
    turns = np.empty(len(classes), dtype=np.int64)
    for one in np.unique(classes):
        own = np.flatnonzero(classes == one)
        turns[own[np.lexsort((drawn[own], values[own]))]] = np.arange(len(own))
    return sorted(int(at) for at in np.lexsort((drawn, turns))[:size])
