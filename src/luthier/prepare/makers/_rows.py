"""Rows of the files people keep pairs in: JSON Lines, JSON, CSV, TSV, Parquet and Hugging Face dataset folders.

Every row comes with where it stands (`pairs.csv:17`), every unreadable one as a `BadRow` with a reason; only a file
that cannot be read at all raises DataError.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.errors import DataError, need
from luthier.prepare.makers._json import BadRow, Row, json_rows
from luthier.prepare.makers._stream import TextFile, look, read_text

__all__ = ["SUFFIXES", "BadRow", "Row", "files_of", "read_rows", "read_text", "split_in_name", "suffix_of"]
_TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*_TEXT, ".parquet")
"""Endings of files of rows; those of text also with .gz."""


def files_of(path: Path, shown: str) -> list[Path]:
    """The files that `path` stands for, in name order; a Hugging Face folder's are its data files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"no file or folder at {shown}; `path` is relative to the project folder")
    arrow = sorted(path.rglob("*.arrow"))
    found = arrow if _saved(path) else sorted(
        file for file in path.rglob("*") if suffix_of(file) in SUFFIXES and file.is_file()
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and file.name not in ("dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json"))
    if not found:
        raise DataError(f"the folder {shown} holds none of: {', '.join(SUFFIXES)} (text also as .gz), nor a saved "
                        "Hugging Face dataset")
    return found


def suffix_of(file: Path) -> str:
    """The ending that tells what the rows are: `.csv` of rows.csv and of rows.csv.gz."""
    suffix = file.suffix.lower()
    inner = Path(file.stem).suffix.lower()
    return inner if suffix == ".gz" and inner in _TEXT else suffix


def _saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def read_rows(path: Path, shown: str, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
    """Every row of a file or folder in a fixed order; `notes` learns the encoding and delimiter found."""
    if path.is_dir() and _saved(path):
        yield from _dataset(path, shown)
        return
    for file in files_of(path, shown):
        name = shown if path.is_file() else f"{shown.rstrip('/')}/{file.relative_to(path).as_posix()}"
        suffix = suffix_of(file)
        if suffix == ".parquet":
            yield from _parquet(file, name, split_in_name(file) if path.is_dir() else "")
            continue
        if suffix not in SUFFIXES:
            raise DataError(f"{name} is no file of rows; known are {', '.join(SUFFIXES)} (text also as .gz) and a "
                            "Hugging Face dataset folder")
        text = look(file, name)
        if text.encoding != "utf-8":
            notes.setdefault("encoding", {})[name] = text.encoding
        if text.empty:
            raise DataError(f"{name} is empty")
        split = split_in_name(file) if path.is_dir() else ""
        rows = _csv(text, suffix, notes) if suffix in (".csv", ".tsv") else json_rows(text)
        for row in rows:
            yield Row(row.where, row.data, split) if isinstance(row, Row) and split else row


def _csv(file: TextFile, suffix: str, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
    csv.field_size_limit(10_000_000)
    name = file.name
    delimiter = "\t" if suffix == ".tsv" else _delimiter(file)
    notes.setdefault("delimiter", {})[name] = {"\t": "tab"}.get(delimiter, delimiter)
    with file.open() as text:
        reader = csv.reader(text, delimiter=delimiter, strict=False)
        try:
            yield from _cells(reader, name, delimiter, notes)
        except csv.Error as error:
            raise DataError(f"{name}:{reader.line_num}: not valid CSV: {error}") from None


def _cells(reader: Any, name: str, delimiter: str, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
    header: list[str] = []
    line = 1
    for cells in reader:
        here, line = line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            if _is_data(cells):
                header = [f"column {number}" for number in range(1, len(cells) + 1)]
                notes.setdefault("header", {})[name] = "none: the first line is a row"
            else:
                header = [cell.strip() for cell in cells]
                continue
        while len(cells) > len(header) and not cells[-1].strip():
            cells = cells[:-1]  # spreadsheets write empty cells at the end
        if len(cells) != len(header):
            yield BadRow(f"{name}:{here}", "wrong-number-of-cells",
                         f"{len(cells)} cells, the header has {len(header)}; a text that holds '{delimiter}' needs "
                         "quotes", delimiter.join(cells))
            continue
        yield Row(f"{name}:{here}", dict(zip(header, cells)))


def _delimiter(file: TextFile) -> str:
    """The sign that cuts the most of the first rows into the same number of cells, at least two."""
    with file.open() as text:
        head = text.read(200_000)

    def score(delimiter: str) -> tuple[float, int]:
        rows = [row for _, row in zip(range(30), csv.reader(io.StringIO(head), delimiter=delimiter)) if row]
        width = len(rows[0]) if rows else 0
        return (sum(len(row) == width for row in rows) / len(rows), -width) if width >= 2 else (-1.0, 0)

    return max((",", ";", "\t", "|"), key=score)


def _is_data(cells: list[str]) -> bool:
    """Whether a CSV's first line is a pair already: names are short and neither ask nor end."""
    return len(cells) == 2 and any(re.search(r"[?.!]$", cell.strip()) or len(cell.split()) > 6 for cell in cells)


def _parquet(file: Path, name: str, split: str) -> Iterator[Row | BadRow]:
    need("datasets", extra="datasets")
    parquet = need("pyarrow.parquet", extra="datasets")
    arrow = need("pyarrow", extra="datasets")
    try:
        count = 0
        opened = parquet.ParquetFile(file)
        named = _class_names(_features(opened.schema_arrow.metadata))
        for batch in opened.iter_batches(batch_size=1000):
            for data in batch.to_pylist():
                count += 1
                yield Row(f"{name}, row {count}", _with_names(data, named), split)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is no readable Parquet file: {_first_line(error)}") from None


def _dataset(path: Path, shown: str) -> Iterator[Row | BadRow]:
    datasets = need("datasets", extra="datasets")
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown} is no readable Hugging Face dataset: {_first_line(error)}") from None
    parts = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    for split, rows in parts.items():
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.Image):  # the file's own bytes, not pixels
                rows = rows.cast_column(column, datasets.Image(decode=False))
        named = _class_names(rows.features.to_dict())
        for number, data in enumerate(rows, 1):
            yield Row(f"{shown}{'/' if split else ''}{split}, row {number}", _with_names(dict(data), named), split)


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """The column types that Hugging Face `datasets` writes into a Parquet file; empty without them."""
    try:
        return json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}


def _class_names(features: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the classes of every column of class numbers, or of lists of them (word tags)."""
    found = {}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        inner = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[column] = list(inner["names"])
    return found


def _with_names(data: dict[str, Any], named: dict[str, list[str]]) -> dict[str, Any]:
    for column, names in named.items():
        def name(value: Any, names: list[str] = names) -> Any:
            if isinstance(value, bool) or not isinstance(value, int):
                return value
            return names[value] if 0 <= value < len(names) else None  # -1 stands for "not known"

        value = data.get(column)
        data[column] = [name(one) for one in value] if isinstance(value, list) else name(value)
    return data


def split_in_name(file: Path) -> str:
    """The split that a file is named after (train.csv, test-00000-of-00001.parquet); empty for any other name."""
    found = re.match(r"(train|validation|valid|val|dev|test)(?:[-_.]|$)", file.stem.lower())
    return found[1] if found else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
