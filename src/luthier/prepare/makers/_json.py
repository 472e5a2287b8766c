"""Rows of JSON: lines, an array, or an object that holds arrays; lines and arrays are read as they come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from luthier.errors import DataError
from luthier.prepare.makers._formats import SPLITS
from luthier.prepare.makers._stream import CHUNK, MAX_LINE, TextFile, lines

_BLANK = re.compile(r"[\s,]*")


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


def json_rows(file: TextFile) -> Iterator[Row | BadRow]:
    """JSON Lines, a JSON array, or an object that holds the array; told by what is in the file, not by its ending.

    Only one object that holds everything, which a file of lines is not, is read as a whole.
    """
    with file.open() as text:
        head = text.read(CHUNK)
        while head.isspace():
            head = head[-1:] + text.read(CHUNK)  # a file of blanks alone is refused before
    if head.lstrip().startswith("["):
        with file.open() as text:
            yield from _array("", 0, file.name, lambda size: text.read(size), opened=False)
        return
    if _has_lines(file):
        with file.open() as text:
            for number, line in lines(text):
                yield _line(f"{file.name}:{number}", line)
        return
    with file.open() as text:
        yield from _whole(text.read(), file.name)


def _has_lines(file: TextFile) -> bool:
    """Whether the first line is a JSON value by itself, and others follow."""
    with file.open() as text:
        found = lines(text)
        first = next(found, (0, None))[1]
        if first is None or next(found, None) is None:
            return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _line(where: str, line: str | None) -> Row | BadRow:
    if line is None:
        return BadRow(where, "too-long", f"a line of more than {MAX_LINE >> 20} million characters")
    try:
        return _object(where, json.loads(line), line)
    except json.JSONDecodeError as error:
        return BadRow(where, "bad-json", f"{error.msg} at column {error.colno}", line)
    except (ValueError, RecursionError) as error:
        return BadRow(where, "bad-json", str(error), line)


def _whole(text: str, name: str) -> Iterator[Row | BadRow]:
    """One object that holds arrays of rows, a single row, or lines whose first is bad."""
    body = text.lstrip()
    parts = _parts(text) if body.startswith("{") else []
    if parts:
        for at, split in parts:
            yield from _array(text, at, name, split=split)
        return
    first = body.split("\n", 1)[0]
    try:
        json.loads(first)
        inner = _whole_object(text) if "\n" not in body.strip() else None
    except (ValueError, RecursionError):
        inner = _whole_object(text)
    if inner is not None:
        yield from _array(text, inner, name)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _line(f"{name}:{number}", line)


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


def _nothing(size: int) -> str:
    return ""


def _array(text: str, at: int, name: str, more: Callable[[int], str] = _nothing, *, split: str = "",
           opened: bool = True) -> Iterator[Row | BadRow]:
    """The elements of a JSON array, each with its first line; in a list of a split, rows may be lists of cells.

    `text` is what was read so far and `at` where the array goes on; `more` reads on from there. `opened`: whether the
    bracket lies behind `at` already.
    """
    decoder = json.JSONDecoder()
    line, counted = 1, 0  # the number of the line at `counted`

    def told(error: Exception) -> str:
        if not isinstance(error, json.JSONDecodeError):
            return str(error)
        return f"{error.msg} on line {line + error.lineno - 1 - text.count(chr(10), 0, at)}, column {error.colno}"

    while True:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string too
        line, counted = line + text.count("\n", counted, at), at
        if at == len(text):
            text, at, counted = more(CHUNK), 0, 0
            if text:
                continue
            raise DataError(f"{name}:{line}: the JSON array is not closed; the file is cut off")
        if not opened:
            opened, at = True, at + 1
            continue
        if text[at] == "]":
            return
        size = CHUNK
        while True:
            try:
                data, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                rest = more(size)
                if not rest:
                    raise DataError(f"{name}:{line}: not valid JSON ({told(error)}); in a JSON array nothing after it "
                                    "can be read, so mend it or write one object a line (.jsonl)") from None
            else:
                rest = more(size) if end == len(text) else ""  # a number may go on
                if not rest:
                    break
            text, at, counted, size = text[at:] + rest, 0, 0, size * 2
        if split and isinstance(data, list):
            data = {f"column {number}": cell for number, cell in enumerate(data, 1)}
        row = _object(f"{name}:{line}", data, text[at:end])
        yield Row(row.where, row.data, split) if split and isinstance(row, Row) else row
        at = end
        if more is not _nothing and at >= CHUNK:
            line += text.count("\n", counted, at)
            text, at, counted = text[at:], 0, 0


def _object(where: str, data: Any, text: str) -> Row | BadRow:
    if not isinstance(data, dict):
        if isinstance(data, list) and data and all(isinstance(turn, dict) for turn in data):
            return Row(where, {"messages": data})  # a bare list of turns
        return BadRow(where, "not-an-object", f"a row is an object with fields, found {type(data).__name__}", text)
    return Row(where, data)
