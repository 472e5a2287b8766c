"""The split of labelled rows: by a hash of what a unit says, held near its fair share within every class.

A unit is a row, or all rows of one document or group. Its split follows from its own hash (as in
`luthier.prepare.split`), so old test rows stay test rows when the data grows. Only where chance takes a class more
than a third away from its share are units moved, those nearest to the border first; a class always keeps a unit in
train.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from luthier.types import Split

TOLERANCE = 1 / 3


def stratify(places: Sequence[float], labels: Sequence[Sequence[str]], shares: Mapping[Split, float]) -> list[Split]:
    """The split of each unit, given its hash between 0 and 1, the labels of its rows, and the shares of the splits
    wanted (they sum to 1).

    A unit with several labels counts for the rarest one. Deterministic; of units with the same distance to a border
    the earlier one is moved.
    """
    number = Counter(label for inside in labels for label in set(inside))
    strata: dict[str, list[int]] = defaultdict(list)
    for unit, inside in enumerate(labels):
        strata[min(set(inside), key=lambda label: (number[label], label), default="")].append(unit)
    edges = _edges(shares)
    found: list[Split] = [_by_place(place, edges) for place in places]
    for _, inside in sorted(strata.items()):
        _one_class(found, inside, places, edges)
    _everywhere_something(found, places, edges)
    _every_label_in_train(found, labels, places, edges)
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


def _one_class(found: list[Split], units: Sequence[int], places: Sequence[float],
               edges: Mapping[Split, tuple[float, float]]) -> None:
    counts: Counter[Split] = Counter(found[unit] for unit in units)
    held: list[Split] = [split for split in edges if split != "train"]
    for split in held:
        fair = (edges[split][1] - edges[split][0]) * len(units)
        least, most = int(fair * (1 - TOLERANCE)), int(fair * (1 + TOLERANCE)) + 1
        while counts[split] < least:
            _move(found, split, [unit for unit in units if found[unit] == "train"], places, edges, counts)
        while counts[split] > most:
            _move(found, "train", [unit for unit in units if found[unit] == split], places, edges, counts)
    if "train" in edges and units and not counts["train"]:
        _move(found, "train", units, places, edges, counts)


def _by_place(place: float, edges: Mapping[Split, tuple[float, float]]) -> Split:
    for split, (_, high) in edges.items():
        if place < high:
            return split
    return list(edges)[-1]


def _move(found: list[Split], to: Split, among: Sequence[int], places: Sequence[float],
          edges: Mapping[Split, tuple[float, float]], counts: Counter[Split]) -> None:
    """The unit whose hash lies nearest to the range of `to` goes there."""
    low, high = edges[to]
    nearest = min(among, key=lambda unit: (max(low - places[unit], places[unit] - high, 0.0), unit))
    counts[found[nearest]] -= 1
    counts[to] += 1
    found[nearest] = to


def _everywhere_something(found: list[Split], places: Sequence[float], edges: Mapping[Split, tuple[float, float]]
                          ) -> None:
    """With many small classes each may round to nothing; no split gets less than half of its fair number overall."""
    counts = Counter(found)
    for split, (low, high) in edges.items():
        least = max(1, int((high - low) * len(found) / 2)) if len(found) >= len(edges) else 0
        while counts[split] < least:
            spare = [unit for unit, value in enumerate(found) if value != split
                     and counts[value] > max(1, int((edges[value][1] - edges[value][0]) * len(found) / 2))]
            if not spare:
                break
            _move(found, split, spare, places, edges, counts)


def _every_label_in_train(found: list[Split], labels: Sequence[Sequence[str]], places: Sequence[float],
                          edges: Mapping[Split, tuple[float, float]]) -> None:
    """What is never trained on cannot be tested: a class with units in held-out splits only gets one into train."""
    if "train" not in edges:
        return
    trained = {label for unit, inside in enumerate(labels) if found[unit] == "train" for label in inside}
    for label in sorted({label for inside in labels for label in inside} - trained):
        if label not in trained:
            holders = [unit for unit, inside in enumerate(labels) if label in inside]
            _move(found, "train", holders, places, edges, Counter())
            trained |= {other for unit in holders if found[unit] == "train" for other in labels[unit]}
