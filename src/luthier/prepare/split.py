"""The frozen split: what may be trained on, decided before any example is made.

A unit (a document, or a passage) falls into a split by a keyed hash of its name, so the split of one unit does not
depend on the others and survives changes elsewhere. Split by document, the hash takes the document's path (an edited
document stays where it is). Split by passage, it takes the document's path and the passage's text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from luthier.prepare.dedupe import in_order, near_pairs
from luthier.prepare.text import normalise
from luthier.shelf import Memory, view
from luthier.spec import Spec
from luthier.types import Passage, Split, digest

_TOGETHER = 4
MANY_DOCUMENTS = 20
"""From this many documents on, `auto` splits by document: at the default shares three of them are for the test."""


class SplitBy(Spec):
    """Which passages are trained on, which choose the checkpoint, and which prove the result."""

    by: Literal["auto", "document", "passage"] = "auto"
    """`document`: no document of the test set is seen in training (the stricter proof). `passage`: passages of one
    document may fall into different splits, never one passage or its near-duplicate. `auto` takes `document` from 20
    documents on and `passage` below, where a test of one or two documents would measure luck."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of documents or passages that choose the best checkpoint."""
    test: float = Field(default=0.15, ge=0, lt=1)
    """Share of documents or passages that are never trained on and that the report is measured on."""

    @model_validator(mode="after")
    def _leaves_something(self) -> SplitBy:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on; their sum must be below 1")
        return self

    def assign(self, passages: Sequence[Passage], *, seed: int, memory: Memory | None = None) -> Splits:
        """Freeze the split of every passage and, split by document, of every document."""
        paths = sorted({passage.path for passage in passages})
        by = self.by if self.by != "auto" else ("document" if len(paths) >= MANY_DOCUMENTS else "passage")
        if by == "document":
            units = {passage.id: passage.path for passage in passages}
        else:
            units = passage_units(passages, memory)
        split_of_unit = self.shares(sorted(set(units.values())), seed=seed)
        of_passage: dict[str, Split] = {id: split_of_unit[unit] for id, unit in units.items()}
        of_document: dict[str, Split] = {}
        if by == "document":
            of_document = {passage.document: of_passage[passage.id] for passage in passages}
        return Splits(by=by, of_passage=of_passage, of_document=of_document,
                      of_new=lambda name: self.by_hash(f"new\0{name}", seed))

    def shares(self, units: Sequence[str], *, seed: int) -> dict[str, Split]:
        """The split of each unit: by its own hash alone, except where chance would leave a split (nearly) empty.

        Every split with a share above 0 gets at least half of its fair number of units, and at least one when there
        are three or more; the units whose hashes lie nearest to that split's range are moved. With many units this
        never happens, so splits are stable; with few it happens at most for the units nearest to a border.
        """
        found: dict[str, Split] = {unit: self.by_hash(unit, seed) for unit in units}
        if len(units) < 3:
            return found
        floors = self._floors(len(units))
        edges: dict[Split, tuple[float, float]] = {
            "test": (0.0, self.test), "validation": (self.test, self.test + self.validation),
            "train": (self.test + self.validation, 1.0)}
        for split, floor in floors.items():
            low, high = edges[split]
            while sum(1 for value in found.values() if value == split) < floor:
                counts = {name: sum(1 for value in found.values() if value == name) for name in edges}
                spare = [unit for unit in units
                         if found[unit] != split and counts[found[unit]] > floors.get(found[unit], 0)]
                if not spare:
                    break
                places = {unit: unit_interval(unit, seed) for unit in spare}
                nearest = min(spare, key=lambda unit: (max(low - places[unit], places[unit] - high), unit))
                found[nearest] = split
        return found

    def each(self, units: Iterable[str], *, seed: int) -> Iterator[Split]:
        """The split of one unit after the other, as `shares` of all of them says; 8 bytes are kept of each.

        The units are gone through twice.
        """
        import numpy as np

        places = array("d", (unit_interval(unit, seed) for unit in units))
        different = np.unique(np.frombuffer(places)) if places else np.zeros(0)
        counts = Counter(self._at(place) for place in different.tolist())
        floors = self._floors(len(different))
        if len(different) < 3 or all(counts[split] >= least for split, least in floors.items()):
            return (self._at(place) for place in places)
        found = self.shares(sorted(set(units)), seed=seed)
        return (found[unit] for unit in units)

    def by_hash(self, unit: str, seed: int) -> Split:
        """The split of a unit by its hash alone."""
        return self._at(unit_interval(unit, seed))

    def _at(self, place: float) -> Split:
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"

    def _floors(self, units: int) -> dict[Split, int]:
        """How many units each split gets at least."""
        wanted: list[tuple[Split, float]] = [
            ("test", self.test), ("validation", self.validation), ("train", 1 - self.test - self.validation)
        ]
        return {split: max(1, int(share * units / 2)) for split, share in wanted if share > 0}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The frozen split of a set of passages."""

    by: Literal["document", "passage"]
    of_passage: Mapping[str, Split]
    of_document: Mapping[str, Split]
    of_new: Callable[[str], Split]
    """The split of something that comes from no passage (the user's own pairs), by the hash of its name."""

    def __call__(self, id: str) -> Split:
        """The split of a passage or document id; KeyError for an id that has none (split by passage, a document)."""
        found = self.of_passage.get(id) or self.of_document.get(id)
        if found is None:
            raise KeyError(f"no split for '{id}': the split is by {self.by}")
        return found


def unit_interval(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on name and seed only, uniform over names."""
    found = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(found[:7], "big") / 2**56


def passage_units(passages: Sequence[Passage], memory: Memory | None = None) -> dict[str, str]:
    """Passage id → unit of a split by passage.

    Together stay: passages that share spans (overlapping chunks, pieces of one long table), up to four neighbours
    under one heading (an answer may run through them), and passages that nearly repeat each other.
    """
    ordered = view(passages, in_order(passages))
    runs: list[list[int]] = []
    before: Passage | None = None
    for at, passage in enumerate(ordered):
        previous, before = before, passage
        if previous is not None and previous.path == passage.path:
            shares = passage.spans[0] < previous.spans[1]
            same = bool(passage.heading) and passage.heading == previous.heading and len(runs[-1]) < _TOGETHER
            if shares or same:
                runs[-1].append(at)
                continue
        runs.append([at])
    run_of = {at: run for run, inside in enumerate(runs) for at in inside}
    leader = list(range(len(runs)))

    def find(run: int) -> int:
        while leader[run] != run:
            run = leader[run]
        return run

    from luthier.prepare.leak import NEAR

    memory = memory or Memory()
    for one, other in near_pairs((passage.text for passage in ordered), NEAR, memory_mb=memory.mb,
                                 folder=memory.folder):
        a, b = sorted((find(run_of[one]), find(run_of[other])))
        leader[b] = a
    names = [f"{ordered[inside[0]].path}#{digest(normalise(ordered[inside[0]].text))}" for inside in runs]
    return {ordered[at].id: names[find(run)] for at, run in run_of.items()}
