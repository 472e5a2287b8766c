"""CSV and TSV: for spreadsheets and everything else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from luthier.plugins import register
from luthier.prepare.formats import _files, _flat
from luthier.prepare.formats.base import FORMATS, Content, FileFormat, What, open_text, plain
from luthier.prepare.formats.jsonl import table_path


@register(FORMATS, "csv")
class Csv(FileFormat):
    """CSV in UTF-8 with a header, comma-separated; a file that ends with .tsv is separated by tabs. Lists (tags,
    documents, earlier turns) stand in their cell as JSON. Images are copied beside it, into a folder."""

    excel: bool = False
    """Begin with a byte-order mark, by which Excel knows UTF-8."""

    what: ClassVar[tuple[What, ...]] = ("examples", "passages", "dropped")
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".csv.gz", ".tsv.gz")

    def folder(self, content: Content) -> bool:
        return content.images

    def write(self, path: Path, content: Content) -> int:
        target = table_path(path, content, "rows.csv")
        tabs = ".tsv" in "".join(target.suffixes[-2:]).lower()
        with open_text(target) as file:
            if self.excel:
                file.write("\ufeff")
            writer = csv.writer(file, delimiter="\t" if tabs else ",", lineterminator="\n")
            count = -1  # the header is no row
            for row in _rows(path, content):
                writer.writerow([_cell(value) for value in row])
                count += 1
        return count

    def lost(self, content: Content) -> tuple[str, ...]:
        return ("carriage returns inside texts become line feeds when it is read back",) if _returns(content) else ()

    def reader(self, content: Content) -> dict[str, Any]:
        maker = _flat.read_back(content, _flat.layout(content, turns=False)) if content.what == "examples" else {}
        return {**maker, "path": "rows.csv"} if maker and content.images else maker


def _rows(path: Path, content: Content) -> Iterator[Any]:
    if content.what != "examples":
        yield _flat.other_columns(content)
        yield from (row.values() for row in _flat.other_rows(content))
        return
    found = _flat.layout(content, turns=False)
    yield found.columns
    for example, row in _flat.rows(content, found):
        if content.images:
            row["image"] = "images/" + _files.copy(example, content, path / "images")
        yield row.values()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        return plain(value)
    return plain(json.dumps(value, ensure_ascii=False)) if isinstance(value, list | dict) else value


def _returns(content: Content) -> bool:
    if content.what != "examples":
        return any("\r" in one.text for one in content.others())
    return any("\r" in part for one in content.examples() for part in (
        one.target or "", *((one.input,) if isinstance(one.input, str) else (turn.content for turn in one.input))))
