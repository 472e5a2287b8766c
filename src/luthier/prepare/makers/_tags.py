"""Tagged text: from word tags (BIO and its relatives) and from lists of pieces to `Tag`s with character positions."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.types import Tag

_TAG = re.compile(r"([BIESULM])[-_](.+)", re.DOTALL)
_LABEL_KEYS = ("label", "tag", "type", "entity", "entity_group")
_OUTSIDE = ("", "O", "o", "0", "_")


def chunks(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, one past the last, label) of every tagged piece.

    One rule reads IOB1, IOB2, BIOES and BILOU (the CoNLL-2000 evaluation script's): a piece begins at B, S or U, and at
    any other tag whose label differs from the one before or that follows the end of a piece. Tags without a prefix
    join with equal neighbours.
    """
    found: list[tuple[int, int, str]] = []
    begin, label, closed = 0, "", True
    for at, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        prefix, name = (match[1], match[2]) if match else ("I", "" if tag in _OUTSIDE else tag)
        if name and not (prefix in "BSU" or name != label or closed):
            closed = prefix in "EL"
            continue
        if label:
            found.append((begin, at, label))
        begin, label, closed = at, name, not name or prefix in "SUEL"
    if label:
        found.append((begin, len(tags), label))
    return found


def join_words(words: Sequence[str], tags: Sequence[str]) -> tuple[str, tuple[Tag, ...]]:
    """The words joined by one space, and their tagged pieces by character."""
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + 1
    spans = tuple(Tag(start=starts[first], end=starts[last - 1] + len(words[last - 1]), label=label)
                  for first, last, label in chunks(tags))
    return " ".join(words), spans


def read_spans(value: Any, text: str) -> tuple[Tag, ...] | None:
    """Pieces given as {start, end, label} or [start, end, label], also as JSON in a cell; None for an empty cell.

    White space at their edges is left out. Raises ValueError for positions outside the text or pieces that overlap.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        value = json.loads(value)
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("the tags are no list of {start, end, label}")
    spans = sorted((_span(one, text) for one in value), key=lambda tag: (tag.start, tag.end))
    for one, other in itertools.pairwise(spans):
        if other.start < one.end:
            raise ValueError(f"'{text[one.start:one.end]}' ({one.label}) and '{text[other.start:other.end]}' "
                             f"({other.label}) overlap; a character can have one tag")
    return tuple(spans)


def _span(value: Any, text: str) -> Tag:
    if isinstance(value, Mapping):
        start, end = value.get("start"), value.get("end")
        label = next((value[name] for name in _LABEL_KEYS if name in value), None)
    elif isinstance(value, list) and len(value) == 3:
        start, end, label = value
    else:
        start = end = label = None
    if isinstance(start, bool) or not isinstance(start, int) or not isinstance(end, int) or not isinstance(label, str):
        raise ValueError(f"a tag is {{start, end, label}} in characters, found {json.dumps(value, default=str)[:80]}")
    if not (0 <= start < end <= len(text)):
        raise ValueError(f"the tag {label} at {start} to {end} lies outside the text of {len(text)} characters")
    piece = text[start:end]
    start, end = start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())
    if start >= end or not label.strip():
        raise ValueError(f"the tag {label} at {start} to {end} is empty")
    return Tag(start=start, end=end, label=label.strip())
