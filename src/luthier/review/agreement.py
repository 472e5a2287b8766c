"""Do two people decide alike? The raw share and Cohen's kappa (Cohen 1960), over the items that both decided."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evaluate.compare import wilson
from luthier.queues import Decided, ReviewItem

Z = 1.959964


@dataclass(frozen=True)
class Agreement:
    """Of two people over one queue."""

    queue: str
    people: tuple[str, str]
    n: int
    """Items that both decided, each without having settled a disagreement."""
    same: int
    """Of these, items with the same answer."""
    kappa: float | None
    """Cohen's kappa over kinds of answers; None where chance alone would already make both agree always."""
    kappa_interval: tuple[float, float] | None
    """95 %, by Cohen's large-sample error."""

    def data(self) -> dict[str, Any]:
        return {"queue": self.queue, "people": list(self.people), "n": self.n, "same": self.same,
                "raw": self.same / self.n, "raw_interval": list(wilson(self.same / self.n, self.n)),
                "kappa": self.kappa, "kappa_interval": self.kappa_interval and list(self.kappa_interval)}


def answer(decided: Decided, item: ReviewItem | None = None) -> str:
    """What a decision comes to, so that two of them can be compared: the text, the labels, the kind; whether it was
    accepted or written by hand makes no difference."""
    if decided.verdict == "reject":
        return "(rejected)"
    value = decided.value
    if value in (None, "") and item is not None:
        value = item.proposal
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, Mapping):
        return json.dumps({key: " ".join(str(inner).split()) for key, inner in sorted(value.items())},
                          ensure_ascii=False)
    return ", ".join(sorted(str(one) for one in value or ())) or "(none)"


def category(queue: str, decided: Decided, item: ReviewItem | None = None) -> str:
    """The kind of answer that kappa counts: free texts are as many kinds as there are items, so for lines and pairs it
    is the verdict; elsewhere the answer."""
    return decided.verdict if queue in ("corrections", "pairs") else answer(decided, item)


def own(decided: Iterable[Decided]) -> dict[str, dict[str, Decided]]:
    """Id → person → the last decision that the person made without settling a disagreement."""
    found: dict[str, dict[str, Decided]] = {}
    for one in decided:
        if not one.settles:
            found.setdefault(one.id, {})[one.by] = one
    return found


def conflicts(decided: Sequence[Decided], items: Mapping[str, ReviewItem]) -> dict[str, list[Decided]]:
    """Id → the decisions of the people who do not agree, until somebody settled it after the last of them."""
    found: dict[str, list[Decided]] = {}
    for id, people in own(decided).items():
        if len({answer(one, items.get(id)) for one in people.values()}) > 1:
            found[id] = list(people.values())
    last = {one.id: one for one in decided}
    return {id: people for id, people in found.items() if not last[id].settles}


def agreements(queue: str, decided: Iterable[Decided], items: Mapping[str, ReviewItem]) -> list[Agreement]:
    """Of every two people who decided the same items, the pair with the most items first."""
    pairs: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    for id, people in own(decided).items():
        item = items.get(id)
        for one, two in itertools.combinations(sorted(people), 2):
            mine, theirs = people[one], people[two]
            pairs.setdefault((one, two), []).append((category(queue, mine, item), category(queue, theirs, item),
                                                     answer(mine, item) == answer(theirs, item)))
    made = []
    for both, rows in sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        kappa, interval = cohen_kappa([row[0] for row in rows], [row[1] for row in rows])
        made.append(Agreement(queue, both, len(rows), sum(row[2] for row in rows), kappa, interval))
    return made


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> tuple[float | None, tuple[float, float] | None]:
    """(kappa, its 95 % interval) of two people's answers to the same items, in the same order."""
    n = len(first)
    seen = sum(a == b for a, b in zip(first, second)) / n
    left, right = Counter(first), Counter(second)
    chance = sum(left[name] * right[name] for name in left) / n ** 2
    if chance == 1:
        return None, None
    kappa = (seen - chance) / (1 - chance)
    half = Z * math.sqrt(seen * (1 - seen) / n) / (1 - chance)
    return kappa, (max(-1.0, kappa - half), min(1.0, kappa + half))
