"""Markdown for tables and lists, and clean text: what all readers share."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence

from luthier.ingest.base import Refused

MAX_COLUMNS = 5_000
"""A wider table is no table that anybody wrote, and would take a reader's whole time."""
_LIGATURES = {ord(c): unicodedata.normalize("NFKC", c) for c in "ﬀﬁﬂﬃﬄﬅﬆ"}
_SPECIAL = {0xAD: None, 0x200B: None, 0xFEFF: None, 0x2060: None, 0xA0: " ", 0x202F: " ", 0x2007: " ",
            0x2028: "\n", 0x2029: "\n", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", **_LIGATURES}


def clean(text: str) -> str:
    """One line of running text: ligatures opened, invisible characters gone, white space single."""
    return " ".join(text.translate(_SPECIAL).split())


def clean_lines(text: str) -> str:
    """Like `clean`, line by line; empty lines at both ends are gone."""
    lines = [" ".join(line.split()) for line in text.translate(_SPECIAL).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header. Empty rows and columns are left out; "" if nothing is left."""
    grid = [[clean_lines(cell).replace("\n", "<br>").replace("|", "\\|") for cell in row] for row in rows]
    grid = [row for row in grid if any(row)]
    width = max((len(row) for row in grid), default=0)
    grid = [[*row, *[""] * (width - len(row))] for row in grid]
    used = [column for column in range(width) if any(row[column] for row in grid)]
    if not used:
        return ""
    lines = ["| " + " | ".join(row[column] for column in used) + " |" for row in grid]
    lines.insert(1, "|" + "---|" * len(used))
    return "\n".join(lines)


def list_item(text: str, depth: int = 0, marker: str = "-") -> str:
    """One Markdown list item; further lines are indented below it."""
    pad = "  " * depth
    return pad + marker + " " + text.strip().replace("\n", "\n" + pad + " " * (len(marker) + 1))


def spanned(rows: Iterable[Iterable[tuple[str, int, int]]]) -> list[list[str]]:
    """Cells (text, columns, rows) at their places: one that spans several stands in each of them. Refuses a table wider
    than `MAX_COLUMNS`."""
    grid: list[list[str]] = []
    hanging: dict[int, tuple[str, int]] = {}
    for row in rows:
        line: list[str] = []
        queue = deque(row)
        while queue or len(line) in hanging:
            column = len(line)
            if column in hanging:
                text, left = hanging.pop(column)
                if left > 1:
                    hanging[column] = (text, left - 1)
                line.append(text)
                continue
            text, wide, high = queue.popleft()
            for offset in range(wide):
                line.append(text)
                if high > 1:
                    hanging[column + offset] = (text, high - 1)
        if len(line) > MAX_COLUMNS:
            raise Refused("too-large", f"a table of more than {MAX_COLUMNS:,} columns")
        grid.append(line)
    return grid
