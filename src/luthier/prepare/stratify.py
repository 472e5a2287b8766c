"""The split of labelled rows: by a hash of what a unit says, held near its fair share within every class.

A unit is a row, or all rows of one document or group. Its split follows from its own hash (as in
`luthier.prepare.split`), so old test rows stay test rows when the data grows. Only where chance takes a class more
than a third away from its share are units moved, those nearest to the border first; a class always keeps a unit in
train.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from luthier.prepare.split import unit_interval
from luthier.types import Split

TOLERANCE = 1 / 3


def stratify(units: Mapping[str, Sequence[str]], shares: Mapping[Split, float], *, seed: int) -> dict[str, Split]:
    """Unit → split, for units with the labels of their rows and the shares of the splits wanted (they sum to 1).

    A unit with several labels counts for the rarest one. Deterministic, and independent of the order of `units`.
    """
    number = Counter(label for labels in units.values() for label in set(labels))
    strata: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(units):
        strata[min(set(units[unit]), key=lambda label: (number[label], label), default="")].append(unit)
    places = {unit: unit_interval(unit, seed) for unit in units}
    edges = _edges(shares)
    found: dict[str, Split] = {}
    for _, inside in sorted(strata.items()):
        found.update(_one_class(inside, places, edges))
    _everywhere_something(found, places, edges)
    _every_label_in_train(found, units, places, edges)
    return found


def _edges(shares: Mapping[Split, float]) -> dict[Split, tuple[float, float]]:
    """Test first, then validation, then train: with the hash order of `SplitBy.by_hash`."""
    order: tuple[Split, ...] = ("test", "validation", "train")
    edges: dict[Split, tuple[float, float]] = {}
    at = 0.0
    for split in order:
        if shares.get(split, 0) > 0:
            edges[split] = (at, at + shares[split])
            at += shares[split]
    return edges


def _one_class(units: Sequence[str], places: Mapping[str, float], edges: Mapping[Split, tuple[float, float]]
               ) -> dict[str, Split]:
    found: dict[str, Split] = {unit: _by_place(places[unit], edges) for unit in units}
    held: list[Split] = [split for split in edges if split != "train"]
    for split in held:
        fair = (edges[split][1] - edges[split][0]) * len(units)
        least, most = int(fair * (1 - TOLERANCE)), int(fair * (1 + TOLERANCE)) + 1
        while sum(value == split for value in found.values()) < least:
            _move(found, split, [unit for unit, value in found.items() if value == "train"], places, edges)
        while sum(value == split for value in found.values()) > most:
            _move(found, "train", [unit for unit, value in found.items() if value == split], places, edges)
    if "train" in edges and units and "train" not in found.values():
        _move(found, "train", list(found), places, edges)
    return found


def _by_place(place: float, edges: Mapping[Split, tuple[float, float]]) -> Split:
    for split, (_, high) in edges.items():
        if place < high:
            return split
    return list(edges)[-1]


def _move(found: dict[str, Split], to: Split, among: Sequence[str], places: Mapping[str, float],
          edges: Mapping[Split, tuple[float, float]]) -> None:
    """The unit whose hash lies nearest to the range of `to` goes there."""
    low, high = edges[to]
    nearest = min(among, key=lambda unit: (max(low - places[unit], places[unit] - high, 0.0), unit))
    found[nearest] = to


def _everywhere_something(found: dict[str, Split], places: Mapping[str, float],
                          edges: Mapping[Split, tuple[float, float]]) -> None:
    """With many small classes each may round to nothing; no split gets less than half of its fair number overall."""
    for split, (low, high) in edges.items():
        least = max(1, int((high - low) * len(found) / 2)) if len(found) >= len(edges) else 0
        while sum(value == split for value in found.values()) < least:
            counts = Counter(found.values())
            spare = [unit for unit, value in found.items() if value != split
                     and counts[value] > max(1, int((edges[value][1] - edges[value][0]) * len(found) / 2))]
            if not spare:
                break
            _move(found, split, spare, places, edges)


def _every_label_in_train(found: dict[str, Split], units: Mapping[str, Sequence[str]], places: Mapping[str, float],
                          edges: Mapping[Split, tuple[float, float]]) -> None:
    """What is never trained on cannot be tested: a class with units in held-out splits only gets one into train."""
    if "train" not in edges:
        return
    trained = {label for unit, labels in units.items() if found[unit] == "train" for label in labels}
    holders: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(units):
        for label in units[unit]:
            holders[label].append(unit)
    for label in sorted(holders):
        if label not in trained:
            _move(found, "train", holders[label], places, edges)
            trained |= {other for unit in holders[label] if found[unit] == "train" for other in units[unit]}
