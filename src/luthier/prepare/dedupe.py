"""Exact and near-duplicate passages: one of each is kept, the others are listed with the one they repeat.

Candidates come from MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3; library:
rensa) over 3-word shingles at a low threshold, which finds nearly all; each candidate pair is then compared exactly
by the Jaccard similarity of its shingle sets, so no pair is merged by a hash collision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import Field

from luthier.errors import need
from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.text import jaccard, normalise, shingles, words
from luthier.spec import Spec
from luthier.types import Dropped, Passage, digest

_SHINGLE = 3
_HASHES = 128
_BANDS = 32
_CANDIDATE = 0.5

_FIGURE = re.compile(r"\w*\d\w*")


class Dedupe(Spec):
    """Removal of repeated passages. The first in order of path and position is kept."""

    exact: bool = True
    """Drop passages whose words equal those of an earlier one (case, spacing and punctuation aside)."""
    near: float | None = Field(default=0.8, ge=0.5, le=1)
    """Drop passages whose 3-word shingles overlap this much (Jaccard) with an earlier one; null switches it off."""
    keep_other_figures: bool = True
    """Keep a near-duplicate that carries other numbers or codes: the data sheets of two products differ in nothing
    else, and the numbers are what people ask for."""

    def apply(self, items: Iterable[Passage], ctx: StepContext) -> Iterator[Kept[Passage] | Dropped]:
        """Yield the passages in their order; a drop's `detail` names the passage it repeats."""
        passages = sorted(items, key=lambda passage: (passage.path, passage.spans, passage.id))
        first: dict[str, Passage] = {}
        unique = []
        for passage in passages:
            key = digest(normalise(passage.text), length=64)
            if self.exact and key in first:
                yield _dropped(passage, "exact-duplicate", first[key])
                continue
            first.setdefault(key, passage)
            unique.append(passage)
        repeats: dict[int, int] = {}
        if self.near is not None and len(unique) > 1:
            figures = [frozenset(_FIGURE.findall(passage.text.casefold())) for passage in unique]
            for one, other in near_pairs([passage.text for passage in unique], self.near):
                if one in repeats or other in repeats:  # `one` went already: its repeats are judged against the kept
                    continue
                if not self.keep_other_figures or figures[one] == figures[other]:
                    repeats[other] = one
        for at, passage in enumerate(unique):
            if at in repeats:
                yield _dropped(passage, "near-duplicate", unique[repeats[at]])
            else:
                yield Kept(passage)


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose 3-word shingles have a Jaccard similarity of at least `threshold`, in order.

    Measured on planted copies (docs/prepare.md). A threshold under 0.5 would miss pairs and raises ValueError.
    """
    found = []
    index = _Candidates(threshold)
    for at, text in enumerate(texts):
        parts, sketch = index.sketch(text)
        found.extend((before, at) for before, _ in index.near(parts, sketch))
        index.add(at, parts, sketch)
    return sorted(found)


def near_between(texts: Sequence[str], others: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """(i, j, Jaccard) of each text i with its nearest of `others`, where that is at least `threshold`."""
    index = _Candidates(threshold)
    for at, other in enumerate(others):
        index.add(at, *index.sketch(other))
    found = []
    for at, text in enumerate(texts):
        near = index.near(*index.sketch(text))
        if near:
            other, share = max(near, key=lambda pair: (pair[1], -pair[0]))
            found.append((at, other, share))
    return found


class _Candidates:
    """Banded MinHash in front of an exact comparison."""

    def __init__(self, threshold: float):
        if threshold < _CANDIDATE:
            raise ValueError(f"near-duplicates are searched from {_CANDIDATE} on, not {threshold}")
        self._rensa = need("rensa", extra="index")
        self._lsh = self._rensa.RMinHashLSH(threshold=_CANDIDATE, num_perm=_HASHES, num_bands=_BANDS)
        self._sets: dict[int, set[str]] = {}
        self._threshold = threshold

    def sketch(self, text: str) -> tuple[set[str], Any]:
        parts = shingles(words(text), _SHINGLE)
        sketch = self._rensa.RMinHash(num_perm=_HASHES, seed=42)
        sketch.update(sorted(parts))
        return parts, sketch

    def add(self, at: int, parts: set[str], sketch: Any) -> None:
        if parts:  # a text without words equals nothing
            self._sets[at] = parts
            self._lsh.insert(at, sketch)

    def near(self, parts: set[str], sketch: Any) -> list[tuple[int, float]]:
        if not parts:
            return []
        compared = ((at, jaccard(self._sets[at], parts)) for at in sorted(set(self._lsh.query(sketch))))
        return [(at, share) for at, share in compared if share >= self._threshold]


def _dropped(passage: Passage, reason: str, kept: Passage) -> Dropped:
    return Dropped(item=passage.id, step="dedupe", reason=reason, detail=f"{passage.citation} repeats {kept.id} "
                   f"({kept.citation})", text=passage.text[:300])
