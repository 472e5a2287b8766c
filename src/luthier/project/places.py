"""Where passages stand: pages and boxes of their documents' spans, which `ingest` recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from luthier.project.base import Project
from luthier.project.gc import parents
from luthier.store import Artifact
from luthier.types import Passage, read_jsonl

Position = tuple[int | None, tuple[float, float, float, float] | None, int | None, float]
"""Page, box, line and confidence of a span."""


class Places:
    """Positions of the documents that an artifact of `prepare` was made from; read once, without their text."""

    def __init__(self, project: Project, prepared: Artifact):
        self.spans: dict[tuple[str, str], list[Position]] = {}
        self.paths: dict[str, str] = {}
        """Document id → path."""
        self.readers: dict[str, str] = {}
        """Document id → reader."""
        ingested = next((found for stage, id in parents(prepared) if stage == "ingest"
                         and (found := project.store.find(stage, id)) is not None), None)
        file = ingested.path / "documents.jsonl" if ingested is not None else None
        for row in read_jsonl(file) if file is not None and file.is_file() else ():
            self.paths[row["id"]] = row["path"]
            self.readers[row["id"]] = row["reader"]
            self.spans[row["id"], row["path"]] = [
                (span["page"], tuple(span["box"]) if span["box"] else None, span["line"], span["confidence"])
                for span in row["spans"]]

    def of(self, passage: Passage) -> list[dict[str, Any]]:
        """One place a page: its box in PDF points from the top left corner (of an image: pixels) around all spans of
        the passage there; the first line where the format has lines; the lowest confidence where it is below 1."""
        found: dict[int | None, dict[str, Any]] = {}
        spans = self.spans.get((passage.document, passage.path), [])
        for page, box, line, confidence in spans[passage.spans[0]:passage.spans[1]]:
            place = found.setdefault(page, {"page": page, "box": None, "line": line, "confidence": 1.0})
            place["confidence"] = min(place["confidence"], confidence)
            if box is not None:
                old = place["box"] or box
                place["box"] = tuple(round(edge, 1) for edge in (
                    min(old[0], box[0]), min(old[1], box[1]), max(old[2], box[2]), max(old[3], box[3])))
        return [{key: value for key, value in place.items() if value is not None and (key, value) !=
                 ("confidence", 1.0)} for place in found.values()]


def said(places: Iterable[dict[str, Any]]) -> str:
    """`page 3, box 72 100 520 340`, for a person."""
    parts = []
    for place in places:
        told = [f"page {place['page']}"] if "page" in place else [f"line {place['line']}"] if "line" in place else []
        if "box" in place:
            told.append("box " + " ".join(f"{edge:g}" for edge in place["box"]))
        if "confidence" in place:
            told.append(f"read with confidence {place['confidence']:.2f}")
        parts.append(", ".join(told))
    return "; ".join(filter(None, parts))
