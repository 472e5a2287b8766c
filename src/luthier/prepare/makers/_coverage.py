"""Which passages are asked about, so that every document has its turn and long ones are covered to the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from luthier.types import Passage

PARTS = ("begin", "middle", "end")


def spread(passages: Sequence[Passage], most: int, covered: Collection[str] = ()) -> list[Passage]:
    """At most `most` passages in the order to ask them: the documents take turns, and inside a document every
    beginning of the order reaches over its whole length (van der Corput 1935, base 2). Passages that no example was
    made of come before `covered` ones."""
    inside: dict[str, list[Passage]] = {}
    for passage in passages:
        inside.setdefault(passage.document, []).append(passage)
    queues = []
    for found in inside.values():
        order = sorted(range(len(found)), key=lambda at: (found[at].id in covered, _mirrored(at, len(found))))
        queues.append([found[at] for at in order])
    turns = [passage for turn in zip_longest(*queues) for passage in turn if passage is not None]
    return sorted(turns, key=lambda passage: passage.id in covered)[:most]


def _mirrored(at: int, count: int) -> int:
    """The bits of a place in reverse: 0, 4, 2, 6, 1, 5, 3, 7 sorted by it are spread evenly from the first few on."""
    width = max(1, (count - 1).bit_length())
    return int(format(at, f"0{width}b")[::-1], 2)


def coverage(passages: Sequence[Passage], asked: set[str], kept: Mapping[str, int]) -> list[dict[str, Any]]:
    """By document: passages, how many were asked about, how many questions stay, and how many stay of its first, middle
    and last third."""
    inside: dict[str, list[Passage]] = {}
    for passage in passages:
        inside.setdefault(passage.path, []).append(passage)
    rows = []
    for path, found in inside.items():
        row: dict[str, Any] = {"document": path, "passages": len(found), "asked": sum(p.id in asked for p in found),
                               "covered": sum(kept.get(p.id, 0) > 0 for p in found),
                               "kept": sum(kept.get(p.id, 0) for p in found), **dict.fromkeys(PARTS, 0)}
        for at, passage in enumerate(found):
            row[PARTS[min(2, 3 * at // len(found))]] += kept.get(passage.id, 0)
        rows.append(row)
    return rows
