"""Tags as pieces of text: BIO names to spans by seqeval's rules, and what is right about them.

`lenient` is conlleval's rule (Tjong Kim Sang & Buchholz 2003) and seqeval's default: an I-x that follows nothing, O or
another tag begins a piece. `strict` is seqeval's `mode="strict", scheme=IOB2`: only B-x begins a piece.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from luthier.evaluate.labels.metrics import Spans
from luthier.types import Tag

Mode = Literal["lenient", "strict"]
Piece = tuple[int, int, str]
"""Start, one past the end, tag."""
WORD = re.compile(r"\w+|[^\w\s]")


def pieces(names: Sequence[str], mode: Mode = "lenient") -> list[Piece]:
    """Pieces of a row of BIO names, counted in tokens: O, B-x, I-x."""
    found: list[Piece] = []
    start, kind = 0, ""
    for at, name in enumerate([*names, "O"]):
        prefix, _, tag = name.partition("-")
        goes_on = prefix == "I" and tag == kind and kind != ""
        if goes_on:
            continue
        if kind:
            found.append((start, at, kind))
        begins = prefix == "B" or (prefix == "I" and mode == "lenient")
        start, kind = at, tag if begins else ""
    return found


def tally(right: Sequence[Sequence[Piece]], said: Sequence[Sequence[Piece]], kinds: Sequence[str],
          words: np.ndarray | None = None, words_right: np.ndarray | None = None) -> Spans:
    """Hits, right and given pieces per row and kind; a piece given twice counts once."""
    place = {kind: at for at, kind in enumerate(kinds)}
    table = np.zeros((3, len(right), len(kinds)), dtype=np.int64)
    for row, (true, given) in enumerate(zip(right, said, strict=True)):
        for layer, some in enumerate((set(true) & set(given), set(true), set(given))):
            for _, _, kind in some:
                table[layer, row, place[kind]] += 1
    none = np.zeros(len(right), dtype=np.int64)
    return Spans(hit=table[0], right=table[1], said=table[2], words=none if words is None else words,
                 words_right=none if words_right is None else words_right)


def word_tags(text: str, spans: Sequence[Piece]) -> list[str]:
    """The tag of each word or sign of a text, "" for none: the piece that overlaps it, the first of several."""
    found = []
    for match in WORD.finditer(text):
        found.append(next((kind for start, end, kind in spans if start < match.end() and end > match.start()), ""))
    return found


def compare(texts: Sequence[str], right: Sequence[Sequence[Piece]], said: Sequence[Sequence[Piece]],
            kinds: Sequence[str]) -> Spans:
    """As `tally`, for pieces in characters, with the words counted too."""
    true = [word_tags(text, spans) for text, spans in zip(texts, right, strict=True)]
    given = [word_tags(text, spans) for text, spans in zip(texts, said, strict=True)]
    words = np.array([len(one) for one in true], dtype=np.int64)
    hits = np.array([sum(a == b for a, b in zip(one, other, strict=True))
                     for one, other in zip(true, given, strict=True)], dtype=np.int64)
    return tally(right, said, kinds, words, hits)


def as_pieces(tags: Sequence[Tag]) -> list[Piece]:
    return [(tag.start, tag.end, tag.label) for tag in tags]
