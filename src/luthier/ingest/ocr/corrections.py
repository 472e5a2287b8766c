"""Lines that wait for a person, what people decided about them, and the error rate that follows.

A line's id is made of the file's content, the page, the place and the text that was read, so a decision in
`labels/corrections.jsonl` holds in every run. When a newer engine reads a line otherwise, the decision is found again
by page and likeness of text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.queues import Decided, ReviewItem, latest
from luthier.types import digest

LIKE = 0.8
"""Likeness (difflib ratio) from which a decision about another reading of the same page is taken for this line's."""
REASONS = {"low-confidence": "the engine is unsure of this line", "unread-handwriting": "handwriting"}


def line_id(sha256: str, page: int, line: Mapping[str, Any]) -> str:
    box = ",".join(str(round(value)) for value in line["box"]) if line["box"] else ""
    return digest("correction", sha256, str(page), box, line["text"])


def where(path: str, page: int) -> str:
    return f"{path}, page {page}"


class Corrections:
    """The decisions of the queue `corrections`, found by line."""

    def __init__(self, decided: Iterable[Decided] = ()):
        self.by_id = latest(decided)
        self.by_place: dict[str, list[Decided]] = {}
        for one in self.by_id.values():
            self.by_place.setdefault(one.where, []).append(one)
        self.used: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.by_id)

    def of_page(self, path: str, sha256: str, page: int, lines: Sequence[Mapping[str, Any]]) -> dict[int, Decided]:
        """Decisions by the number of the line."""
        if not self.by_id:
            return {}
        ids = [line_id(sha256, page, line) for line in lines]
        found = {at: self.by_id[id] for at, id in enumerate(ids) if id in self.by_id}
        rest = [one for one in self.by_place.get(where(path, page), ()) if one.id not in ids and one.text]
        for one in rest:
            open_lines = [at for at, line in enumerate(lines) if at not in found and line["text"]]
            best = max(open_lines, key=lambda at: _like(lines[at]["text"], one.text), default=None)
            if best is not None and _like(lines[best]["text"], one.text) >= LIKE:
                found[best] = one
        self.used |= {one.id for one in found.values()}
        return found


def _like(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def corrected(line: Mapping[str, Any], decided: Decided | None) -> str:
    """The line's text as it holds now: as read, as corrected, or nothing where a person refused it."""
    if decided is None:
        return line["text"]
    if decided.verdict == "reject":
        return ""
    value = decided.value if isinstance(decided.value, str) and decided.value else None
    return " ".join((value or line["text"]).split())


def doubt_of(line: Mapping[str, Any], min_confidence: float) -> str:
    """Why a line needs a person; empty where it does not."""
    if not line["text"]:
        return ""
    return "unread-handwriting" if line["hand"] else "low-confidence" if line["confidence"] < min_confidence else ""


def review_item(path: str, sha256: str, page: int, line: Mapping[str, Any], doubt: str, context: str) -> ReviewItem:
    return ReviewItem(queue="corrections", id=line_id(sha256, page, line), text=line["text"], proposal=line["text"],
                      confidence=line["confidence"], reason=REASONS[doubt], where=where(path, page), path=path,
                      page=page, box=tuple(line["box"]) if line["box"] else None, context=context,
                      notes={"doubt": doubt})


@dataclass(frozen=True)
class Judged:
    """A line that a person read: what the engine made of it and what it says."""

    path: str
    hand: bool
    read: str
    right: str


def error_rate(lines: Sequence[Judged]) -> dict[str, Any]:
    """Character error rate: edits over characters of the right text, with n and a 95 % interval (bootstrap over lines;
    none below five). Only lines in doubt are asked about, so this is the rate of those, not of all text."""
    import numpy as np

    edits = np.array([edit_distance(line.read, line.right) for line in lines], float)
    chars = np.array([len(line.right) for line in lines], float)
    found: dict[str, Any] = {"cer": round(float(edits.sum() / max(chars.sum(), 1)), 4), "lines": len(lines)}
    if len(lines) >= 5:
        picks = np.random.default_rng(0).integers(0, len(lines), (1000, len(lines)))
        rates = edits[picks].sum(axis=1) / np.maximum(chars[picks].sum(axis=1), 1)
        found["interval"] = [round(float(value), 4) for value in np.quantile(rates, (0.025, 0.975))]
    return found


def error_rates(lines: Sequence[Judged]) -> dict[str, Any]:
    """The rate of all judged lines, of printed and handwritten ones, and of each source."""
    if not lines:
        return {}
    kinds = {"printed": [line for line in lines if not line.hand], "handwritten": [line for line in lines if line.hand]}
    paths = sorted({line.path for line in lines})
    return {"all": error_rate(lines), **{name: error_rate(some) for name, some in kinds.items() if some},
            "sources": {path: error_rate([line for line in lines if line.path == path]) for path in paths}}


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements that make one text the other (Levenshtein), bit-parallel: a column of the
    table is one integer (Hyyrö 2003)."""
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for at, char in enumerate(one):
        places[char] = places.get(char, 0) | 1 << at
    full, last = (1 << len(one)) - 1, 1 << len(one) - 1
    up, down, distance = full, 0, len(one)
    for char in other:
        match = places.get(char, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        left_up = down | (~(diagonal | up) & full)
        left_down = diagonal & up
        distance += bool(left_up & last) - bool(left_down & last)
        left_up = (left_up << 1 | 1) & full
        left_down = left_down << 1 & full
        up = left_down | (~(diagonal | left_up) & full)
        down = left_up & diagonal
    return distance
