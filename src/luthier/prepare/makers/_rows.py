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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError, need
from luthier.prepare.makers._formats import SPLITS

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Row:
    where: str
    data: dict[str, Any]
    split: str = ""
    """The split that the file or folder names (Hugging Face folders); empty where it names none."""


@dataclass(frozen=True)
class BadRow:
    where: str
    reason: str
    detail: str
    text: str = ""


def files_of(path: Path, shown: str) -> list[Path]:
    """The files that `path` stands for, in name order; a Hugging Face folder's are its data files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"no file or folder at {shown}; `path` is relative to the project folder")
    arrow = sorted(path.rglob("*.arrow"))
    found = arrow if _saved(path) else sorted(
        file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and file.name not in ("dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json"))
    if not found:
        raise DataError(f"the folder {shown} holds none of: {', '.join(SUFFIXES)}, nor a saved Hugging Face "
                        "dataset")
    return found


def _saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def read_rows(path: Path, shown: str, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
    """Every row of a file or folder in a fixed order; `notes` learns the encoding and delimiter found."""
    if path.is_dir() and _saved(path):
        yield from _dataset(path, shown)
        return
    for file in files_of(path, shown):
        name = shown if path.is_file() else f"{shown.rstrip('/')}/{file.relative_to(path).as_posix()}"
        suffix = file.suffix.lower()
        if suffix == ".parquet":
            yield from _parquet(file, name, split_in_name(file) if path.is_dir() else "")
            continue
        if suffix not in SUFFIXES:
            raise DataError(f"{name} is no file of rows; known are {', '.join(SUFFIXES)} and a Hugging Face "
                            "dataset folder")
        text, encoding = read_text(file, name)
        if encoding != "utf-8":
            notes.setdefault("encoding", {})[name] = encoding
        if not text.strip():
            raise DataError(f"{name} is empty")
        split = split_in_name(file) if path.is_dir() else ""
        rows = _csv(text, name, suffix, notes) if suffix in (".csv", ".tsv") else _json(text, name)
        for row in rows:
            yield Row(row.where, row.data, split) if isinstance(row, Row) and split else row


def read_text(file: Path, name: str) -> tuple[str, str]:
    """(text with line feeds only, encoding): UTF-8 or UTF-16 by its mark, UTF-8, else the likeliest old encoding."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8"
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        encoding, text = _guess(raw)
    if "\0" in text:
        raise DataError(f"{name} is not a text file (it holds zero bytes)")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _guess(raw: bytes) -> tuple[str, str]:
    """Windows' Western encoding unless charset-normalizer (extra `ingest`) knows better; both decode every byte."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return "cp1252", raw.decode("cp1252", "replace")
    found = from_bytes(raw, cp_isolation=["cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "euc_kr", "big5"])
    best = found.best()
    western = next(
        (match for match in found if match.encoding == "cp1252" or "cp1252" in match.could_be_from_charset), None
    )
    if best is None or (western is not None and western.chaos <= best.chaos):
        return "cp1252", raw.decode("cp1252", "replace")
    return best.encoding, str(best)


def _json(text: str, name: str) -> Iterator[Row | BadRow]:
    """JSON Lines, a JSON array, or an object that holds the array; told by what is in the file, not by its ending."""
    body = text.lstrip()
    start = len(text) - len(body)
    if body.startswith("["):
        yield from _array(text, start + 1, name)
        return
    first = body.split("\n", 1)[0]
    parts = _parts(text) if body.startswith("{") else []
    if parts:
        for at, split in parts:
            yield from _array(text, at, name, split)
        return
    try:
        json.loads(first)
    except ValueError:
        whole = _whole_object(text)
        if whole is not None:
            yield from _array(text, whole, name)
            return
    else:
        inner = _whole_object(text) if "\n" not in body.strip() else None
        if inner is not None:
            yield from _array(text, inner, name)
            return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            data = json.loads(line)
        except ValueError as error:
            told = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            yield BadRow(where, "bad-json", told, line)
            continue
        yield _object(where, data, line)


def _parts(text: str) -> list[tuple[int, str]]:
    """For one object whose lists are named after splits ({"train": [...], "oos_test": [...]}): the offset just inside
    each list, and its split."""
    if not re.match(r'\s*\{\s*"[^"\n]{1,40}"\s*:\s*\[', text):
        return []
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return []
    names = {key: next((SPLITS[part] for part in re.split(r"[^a-z]+", key.lower()) if part in SPLITS), "")
             for key in data}
    if not all(names.values()) or not all(isinstance(rows, list) for rows in data.values()):
        return []
    found, at = [], 0
    for key, split in names.items():
        match = re.compile(rf'{re.escape(json.dumps(key))}\s*:\s*\[').search(text, at)
        if match is None:
            return []
        found.append((match.end(), split))
        at = match.end()
    return found


def _whole_object(text: str) -> int | None:
    """For an object such as {"data": [...]}: the offset just inside the array of rows."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    for key in ("data", "rows", "examples", "pairs", "items", "train", "conversations"):
        rows = data.get(key)
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and not {"from", "role"} & set(rows[0]):
            found = re.search(rf'"{key}"\s*:\s*\[', text)
            return found.end() if found else None
    return None


def _array(text: str, at: int, name: str, split: str = "") -> Iterator[Row | BadRow]:
    """The elements of a JSON array, each with its first line; in a list of a split, rows may be lists of cells."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    blank = re.compile(r"[\s,]*")
    while True:
        at = blank.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string too
        line, counted = line + text.count("\n", counted, at), at
        if text[at:at + 1] in ("]", ""):
            if at >= len(text):
                raise DataError(f"{name}:{line}: the JSON array is not closed; the file is cut off")
            return
        try:
            data, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            told = f"{error.msg} on line {error.lineno}, column {error.colno}" if isinstance(
                error, json.JSONDecodeError) else str(error)
            raise DataError(f"{name}:{line}: not valid JSON ({told}); in a JSON array nothing after it can be "
                            "read, so mend it or write one object a line (.jsonl)") from None
        if split and isinstance(data, list):
            data = {f"column {number}": cell for number, cell in enumerate(data, 1)}
        row = _object(f"{name}:{line}", data, text[at:end])
        yield Row(row.where, row.data, split) if split and isinstance(row, Row) else row
        at = end


def _object(where: str, data: Any, text: str) -> Row | BadRow:
    if not isinstance(data, dict):
        if isinstance(data, list) and data and all(isinstance(turn, dict) for turn in data):
            return Row(where, {"messages": data})  # a bare list of turns
        return BadRow(where, "not-an-object", f"a row is an object with fields, found {type(data).__name__}", text)
    return Row(where, data)


def _csv(text: str, name: str, suffix: str, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
    csv.field_size_limit(10_000_000)
    delimiter = "\t" if suffix == ".tsv" else _delimiter(text)
    notes.setdefault("delimiter", {})[name] = {"\t": "tab"}.get(delimiter, delimiter)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=False)
    header: list[str] = []
    line = 1
    try:
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
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: not valid CSV: {error}") from None


def _delimiter(text: str) -> str:
    """The sign that cuts the most of the first rows into the same number of cells, at least two."""
    def score(delimiter: str) -> tuple[float, int]:
        rows = [row for _, row in zip(range(30), csv.reader(io.StringIO(text[:200_000]), delimiter=delimiter)) if row]
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
