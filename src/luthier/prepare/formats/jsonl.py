"""JSON Lines of rows: labelled data, passages, drops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from luthier.plugins import register
from luthier.prepare.formats import _files, _flat
from luthier.prepare.formats.base import FORMATS, Content, FileFormat, What, json_line, open_text


@register(FORMATS, "jsonl")
class JsonLines(FileFormat):
    """JSON Lines with one column a field: text and label, text and spans, query and positive, or messages. Images
    are copied beside it, into a folder."""

    what: ClassVar[tuple[What, ...]] = ("examples", "passages", "dropped")
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz")

    def folder(self, content: Content) -> bool:
        return content.images

    def write(self, path: Path, content: Content) -> int:
        count = 0
        with open_text(table_path(path, content, "rows.jsonl")) as file:
            if content.what != "examples":
                for row in _flat.other_rows(content):
                    file.write(json_line(row))
                    count += 1
                return count
            for example, row in _flat.rows(content, _flat.layout(content, turns=True)):
                if content.images:
                    row["image"] = "images/" + _files.copy(example, content, path / "images")
                file.write(json_line(row))
                count += 1
        return count

    def reader(self, content: Content) -> dict[str, Any]:
        maker = _flat.read_back(content, _flat.layout(content, turns=True)) if content.what == "examples" else {}
        return {**maker, "path": "rows.jsonl"} if maker and content.images else maker


def table_path(path: Path, content: Content, name: str) -> Path:
    """The table itself: `path`, or, beside copies of images, a file in that folder."""
    if not content.images:
        return path
    path.mkdir(parents=True, exist_ok=True)
    return path / name
