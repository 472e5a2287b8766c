"""Pages that were read from their pictures become spans of their document. Cheap, and done in every run: what people
corrected since the page was read takes effect without reading it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.ingest._quality import BAD
from luthier.ingest.ocr._layout import Piece, render, union, word_counts
from luthier.ingest.ocr.base import Ocr
from luthier.ingest.ocr.corrections import Corrections, Judged, corrected, doubt_of, review_item
from luthier.ingest.ocr.page import Read, warnings_of
from luthier.queues import ReviewItem
from luthier.types import Document, Span

BETTER = 0.05
"""By how much the share of word-like text must rise before a page's picture counts for more than its text layer."""
_LAYER = (*BAD, "layout-lost-text", "reading-order")


@dataclass
class Tally:
    """What text recognition did in a run."""

    pages: int = 0
    failed: int = 0
    lines: int = 0
    handwritten: int = 0
    in_doubt: int = 0
    """Lines that nobody decided about yet."""
    items: list[ReviewItem] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    """Every page with its lines, for the page that shows image and text side by side."""
    fresh: int = 0
    """Pages that were read now, for no cache knew them; those that could not be read do not count."""
    seconds: float = 0.0
    """Wall time of reading them."""


def merge(document: Document, wanted: Sequence[Mapping[str, Any]], pages: Mapping[int, Mapping[str, Any]], ocr: Ocr,
          corrections: Corrections, tally: Tally, *, drop_bad: bool) -> Document:
    """The document with the text of its pictures. `pages`: number → a `Read`, or reason and detail."""
    spans: dict[int, list[Span]] = {}
    warnings: list[dict[str, Any]] = list(document.meta.get("page_warnings", ()))
    about: list[dict[str, Any]] = []
    silent: list[int] = []
    for want in wanted:
        number, page = want["page"], pages[want["page"]]
        if "reason" in page:
            tally.failed += 1
            warnings.append({"page": number, "warning": "ocr-failed", "detail": f"{page['reason']}: {page['detail']}"})
            continue
        read = Read(page["lines"], page["pieces"], page["about"])
        if not _is_better(read, want):
            continue
        if want["why"] != "no-text":
            warnings = [one for one in warnings if one["page"] != number or one["warning"] not in _LAYER]
        elif not any(line["text"] for line in read.lines):
            silent.append(number)
            continue
        spans[number] = _spans(document, number, read, ocr, corrections, tally)
        tally.pages += 1
        warnings += [{"page": number, **one} for one in warnings_of(read, ocr.min_confidence)]
        about.append({"page": number, "why": want["why"], "lines": len(read.lines), **read.about})
    kept = [span for span in document.spans if span.page not in spans]
    merged = sorted([*kept, *(span for page in spans.values() for span in page)], key=lambda span: span.page or 0)
    meta = dict(document.meta)
    if "pages_without_text" in meta:
        meta["pages_without_text"] = [page for page in meta["pages_without_text"] if page not in spans]
    if silent:
        meta["pages_without_text"] = sorted({*meta.get("pages_without_text", ()), *silent})
    bad = {w["page"] for w in warnings if w["warning"] in (*BAD, "ocr-garbled")} if drop_bad else ()
    if bad:
        meta["pages_dropped"] = sorted({*meta.get("pages_dropped", ()), *bad})
        merged = [span for span in merged if span.page not in bad]
    meta |= {"ocr": about, "page_warnings": sorted(warnings, key=lambda w: (w["page"] or 0, w["warning"]))}
    title = document.title
    heading = next((span.text for span in merged if span.kind == "heading" and not span.doubt), "")
    if heading and title == " ".join(Path(document.path).stem.replace("_", " ").split())[:300]:
        title = " ".join(heading.split())[:300]
    return replace(document, title=title, spans=tuple(merged),
                   meta={key: value for key, value in meta.items() if value not in (None, "", [], {})})


def _is_better(read: Read, want: Mapping[str, Any]) -> bool:
    """Whether the picture tells more than the page's text layer."""
    if want["why"] == "no-text":
        return True
    chars = sum(len("".join(line["text"].split())) for line in read.lines)
    if want["why"] == "stamp":
        return chars > 1.5 * want["chars"] and read.about["words"] >= 0.7
    return chars > 0.3 * want["chars"] and (read.about["words"] > want["words"] + BETTER or
                                            (want["why"] == "broken-text" and read.about["words"] >= 0.9))


def _spans(document: Document, number: int, read: Read, ocr: Ocr, corrections: Corrections, tally: Tally
           ) -> list[Span]:
    lines = read.lines
    decided = corrections.of_page(document.path, document.sha256, number, lines)
    texts = [corrected(line, decided.get(at)) for at, line in enumerate(lines)]
    doubts = ["" if at in decided else doubt_of(line, ocr.min_confidence) for at, line in enumerate(lines)]
    words = word_counts(texts)
    found: list[Span] = []
    for data in read.pieces:
        piece = Piece(**data)
        inside = [at for at in piece.numbers() if texts[at]]
        text = render(piece, texts, words)
        for at in inside:
            if doubts[at]:
                tally.items.append(review_item(document.path, document.sha256, number, lines[at], doubts[at], text))
        if not text:
            continue
        boxes = [tuple(lines[at]["box"]) for at in inside if lines[at]["box"]]
        hand = any(lines[at]["hand"] for at in inside)
        if hand and piece.kind == "heading":  # large writing heads nothing
            piece = Piece("paragraph", 0, piece.parts)
        doubt = "" if ocr.use_unsure else max((doubts[at] for at in inside), default="")
        found.append(Span(text=text, kind="table" if piece.kind == "markdown" else piece.kind,  # type: ignore[arg-type]
                          level=piece.level, page=number, box=union(boxes) if boxes else None,  # type: ignore[arg-type]
                          confidence=_confidence([(1.0 if at in decided else lines[at]["confidence"], len(texts[at]))
                                                  for at in inside]),
                          hand=hand, doubt=doubt))  # type: ignore[arg-type]
    tally.lines += sum(bool(line["text"]) for line in lines)
    tally.handwritten += sum(line["hand"] and bool(line["text"]) for line in lines)
    tally.in_doubt += sum(map(bool, doubts))
    tally.judged += [Judged(document.path, lines[at]["hand"], lines[at]["text"], texts[at])
                     for at, one in decided.items() if one.verdict != "reject"]
    tally.told.append({"path": document.path, "page": number, "about": read.about,
                       "lines": [{**line, "text": text, "doubt": doubt, "read": line["text"]}
                                 for line, text, doubt in zip(lines, texts, doubts)]})
    return found


def _confidence(parts: Sequence[tuple[float, int]]) -> float:
    chars = sum(length for _, length in parts)
    return round(sum(value * length for value, length in parts) / chars, 3) if chars else 0.0
