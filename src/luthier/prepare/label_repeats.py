"""Rows that repeat each other, and rows that contradict each other.

Of equal rows one stays: the held-out one (test before validation before train), else the first. Of rows with the
same text and different labels the held-out ones decide (they are what the result is measured on) and the train ones
go; among train rows a strict majority decides, and without one none of them can be trusted and all go.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from luthier.prepare.base import OWN_SPLIT
from luthier.prepare.keys import shared
from luthier.shelf import Sink
from luthier.task import Task
from luthier.types import Dropped, Example

UNLABELLED = "unlabelled"
_RANK = {"test": 2, "validation": 1, "train": 0}


def drop_repeats(rows: Sequence[Example], keys: array[int], content: Callable[[Example], str], task: Task,
                 dropped: Sink[Dropped]) -> tuple[list[int], list[dict[str, Any]]]:
    """(numbers of the rows that stay, in their order; the conflicts found, for the card).

    `content` gives what makes two rows the same, `keys` the `key_of` of it for every row. For `embed` a query may have
    several answers, so only the same pair is a repeat there, and a query of the test is kept out of training.
    """
    groups: dict[str, list[int]] = {}
    for at in np.flatnonzero(shared(keys)).tolist():
        groups.setdefault(content(rows[at]), []).append(at)
    gone: set[int] = set()
    conflicts: list[dict[str, Any]] = []
    for numbers in groups.values():
        if len(numbers) == 1:
            continue
        inside = [rows[at] for at in numbers]
        number = {id(example): at for example, at in zip(inside, numbers)}
        lost = _embed(inside) if task.type == "embed" else _one(inside)
        for example, reason, other in lost:
            gone.add(number[id(example)])
            dropped.append(drop(example, reason, f"the same text as {other.origin.where}"
                                + (f", which is labelled {said(other)}, not {said(example)}"
                                   if reason == "conflicting-label" else "")))
        if any(reason == "conflicting-label" for _, reason, _ in lost):
            conflicts.append({"text": str(inside[0].input)[:300] or inside[0].image,
                              "rows": [{"where": one.origin.where, "label": said(one), "split": _side(one),
                                        "kept": number[id(one)] not in gone} for one in inside[:8]]})
    return [at for at in range(len(rows)) if at not in gone], conflicts


def _one(inside: Sequence[Example]) -> list[tuple[Example, str, Example]]:
    """(row, reason, the row it repeats or contradicts) of every row that goes."""
    answered = [example for example in inside if UNLABELLED not in example.tags]
    if not answered:
        return [(example, "duplicate", inside[0]) for example in inside[1:]]
    top = max(_rank(example) for example in answered)
    deciding = [example for example in answered if _rank(example) == top]
    votes = Counter(answer(example) for example in deciding).most_common()
    tie = len(votes) > 1 and votes[0][1] == votes[1][1]
    lost: list[tuple[Example, str, Example]] = []
    if tie and top == 0:
        for example in answered:
            other = next(one for one in answered if answer(one) != answer(example))
            lost.append((example, "conflicting-label", other))
        rest = [example for example in inside if UNLABELLED in example.tags]
        return lost + [(example, "duplicate", answered[0]) for example in rest]
    right = answer(deciding[0]) if tie else votes[0][0]
    stays = next(example for example in deciding if answer(example) == right)
    for example in inside:
        if example is not stays:
            same = UNLABELLED in example.tags or answer(example) == right
            lost.append((example, "duplicate" if same else "conflicting-label", stays))
    return lost


def _embed(inside: Sequence[Example]) -> list[tuple[Example, str, Example]]:
    top = max(_rank(example) for example in inside)
    lost: list[tuple[Example, str, Example]] = []
    first: dict[Any, Example] = {}
    for example in sorted(inside, key=lambda one: -_rank(one)):  # stable: the held-out ones first
        if example.target in first:
            lost.append((example, "duplicate", first[example.target]))
        elif _rank(example) < top:
            lost.append((example, "leak-query", next(one for one in inside if _rank(one) == top)))
        elif UNLABELLED in example.tags and any(one is not example for one in inside):
            lost.append((example, "duplicate", next(one for one in inside if one is not example)))
        else:
            first[example.target] = example
    return lost


def _rank(example: Example) -> int:
    return _RANK[example.split] if OWN_SPLIT in example.tags else 0


def _side(example: Example) -> str:
    return example.split if OWN_SPLIT in example.tags else ""


def answer(example: Example) -> Any:
    """A row's answer in comparable form: classes as a set, tags by position."""
    if example.labels is not None:
        return frozenset(example.labels)
    return example.spans if example.spans is not None else example.target


def said(example: Example) -> str:
    """A row's answer for a person."""
    if example.labels is not None:
        return ", ".join(f"'{label}'" for label in example.labels) or "none of the classes"
    if example.spans is not None:
        return ", ".join(f"{tag.label} {tag.start}-{tag.end}" for tag in example.spans[:4]) or "without tags"
    return f"'{(example.target or '')[:80]}'"


def drop(example: Example, reason: str, detail: str) -> Dropped:
    return Dropped(item=example.id, step=example.origin.step, reason=reason, detail=f"{example.origin.where}: {detail}",
                   text=(str(example.input) or example.image)[:300])
