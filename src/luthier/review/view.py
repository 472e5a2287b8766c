"""What the page shows of an item: pieces of text with marks, never HTML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from luthier.queues import Decided, ReviewItem, latest
from luthier.review.agreement import answer, own
from luthier.review.desk import Desk, Mode
from luthier.review.items import pair_of

Piece = tuple[str, str]
"""A text and its mark: empty, `hit` (personal data, evidence), `gone` or `new` (differences)."""
MAX_DIFF = 4000
"""Words of one text up to which differences are looked for; the time grows with their product."""
DRAWN = {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def view(desk: Desk, item: ReviewItem, mode: Mode) -> dict[str, Any]:
    """All that the page needs. In the mode `second` nothing of what others decided is in it."""
    decided = desk.now().decided.get(item.queue, [])
    known = latest(decided).get(item.id)
    data: dict[str, Any] = {
        "queue": item.queue, "id": item.id, "reason": item.reason, "where": item.where, "confidence": item.confidence,
        "choices": list(item.choices), "proposal": _plain(item.proposal), "multi": desk.multi_label,
        "image": has_image(item), "box": list(item.box) if item.box else None,
        "text": [(item.text, "")], "context": [(item.context, "")] if item.context else [],
        "decided": _said(known, item) if known is not None and mode == "open" else None,
        "said": [_said(one, item) for one in own(decided).get(item.id, {}).values()] if mode == "conflicts" else [],
    }
    if item.queue == "duplicates":
        data["text"], data["context"] = differences(item.text, item.context)
    elif item.queue == "privacy":
        sentence = item.context or item.text
        data |= {"text": _marked(sentence, _spans(item, sentence)), "context": []}
    elif item.queue == "pairs":
        data |= pair_of(item)
        evidence = str(item.notes.get("evidence") or "")
        data["context"] = _marked(item.context, _find(item.context, evidence)) if item.context else []
    elif item.queue == "labels":
        data |= {"given": list(item.notes.get("given") or ()), "top": list(item.notes.get("top") or ())}
    return data


def has_image(item: ReviewItem) -> bool:
    """Whether there is a page or picture to show: of slides and sheets, which have numbers too, none is drawn."""
    return bool(item.notes.get("image")) or PurePosixPath(item.path).suffix.lower() in DRAWN


def differences(one: str, two: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces: what only the first has is `gone`, what only the second has is `new`."""
    left, right = _WORDS.findall(one), _WORDS.findall(two)
    if max(len(left), len(right)) > MAX_DIFF:
        return [(one, "")], [(two, "")]
    first: list[Piece] = []
    second: list[Piece] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        same = kind == "equal"
        first.append(("".join(left[a:b]), "" if same else "gone"))
        second.append(("".join(right[c:d]), "" if same else "new"))
    return [piece for piece in first if piece[0]], [piece for piece in second if piece[0]]


def _spans(item: ReviewItem, text: str) -> list[tuple[int, int]]:
    """Where the hit stands in its sentence: told by offsets, or found by its text, which the reason quotes."""
    start, end = item.notes.get("start"), item.notes.get("end")
    if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text):
        return [(start, end)]
    quoted = re.search("“(.+?)”", item.reason, re.DOTALL)
    return _find(text, str(item.notes.get("value") or (quoted[1] if quoted else "")))


def _find(text: str, piece: str) -> list[tuple[int, int]]:
    at = text.find(piece) if piece.strip() else -1
    return [(at, at + len(piece))] if at >= 0 else []


def _marked(text: str, spans: Iterable[tuple[int, int]]) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for start, end in spans:
        pieces += [(text[at:start], ""), (text[start:end], "hit")]
        at = end
    return [piece for piece in [*pieces, (text[at:], "")] if piece[0]]


def _said(decided: Decided, item: ReviewItem) -> dict[str, Any]:
    return {"by": decided.by, "verdict": decided.verdict, "answer": answer(decided, item),
            "value": _plain(decided.value), "at": decided.at, "settles": decided.settles}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
