"""CSV and other delimited tables: Markdown tables in blocks of rows, each with the header on top."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from luthier.ingest._blocks import MAX_COLUMNS, table
from luthier.ingest.base import LIKELY, NO, READERS, Refused, Source
from luthier.ingest.text import decode, looks_like_text
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span


@register(READERS, "csv")
class CsvReader(Spec):
    """Tables as text, with any delimiter; a block of rows is one span."""

    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Character between two cells; None finds it out (comma, semicolon, tab or pipe)."""
    encoding: str | None = None
    """Encoding of the files; None finds it out."""
    rows_per_block: int = Field(default=25, ge=1)
    """Rows in one span; the header is repeated on each."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        named = source.suffix in (".csv", ".tsv", ".tab", ".psv")
        return LIKELY if named and looks_like_text(source.head) else NO

    def read(self, source: Source) -> Iterator[Document]:
        text, encoding = decode(source.read_bytes(), self.encoding)
        yield source.document(reader="csv", media="text/csv", meta={"encoding": encoding},
                              spans=spans_of(text, delimiter=self.delimiter, rows_per_block=self.rows_per_block))


def spans_of(text: str, *, delimiter: str | None = None, rows_per_block: int = 25) -> list[Span]:
    """Table spans of delimited text, with the line each block starts on."""
    csv.field_size_limit(10_000_000)
    chosen = delimiter or find_delimiter(text)
    parsed = csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=False)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in parsed:
            if any(cell.strip() for cell in row):
                rows.append((line, row))
            line = parsed.line_num + 1
    except csv.Error as error:
        raise Refused("corrupt", f"line {parsed.line_num}: {error}") from None
    if not rows:
        return []
    if (widest := max(len(row) for _, row in rows)) > MAX_COLUMNS:
        raise Refused("too-large", f"a table of {widest:,} columns; up to {MAX_COLUMNS:,} are read")
    header, body = rows[0], rows[1:]
    if not _is_header(header[1]):
        header, body = (1, [f"column {i + 1}" for i in range(len(header[1]))]), rows
    if not body:
        return [Span(text=table([header[1]]), kind="table", line=header[0])]
    return [Span(text=table([header[1], *(row for _, row in body[i:i + rows_per_block])]), kind="table",
                 line=body[i][0])
            for i in range(0, len(body), rows_per_block)]


def find_delimiter(text: str) -> str:
    """The delimiter that splits the first lines into the same number of cells most often."""
    sample = text[:20_000]
    if len(text) > len(sample):
        sample = sample.rpartition("\n")[0] or sample

    def score(delimiter: str) -> tuple[float, int]:
        rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if any(row)]
        counts = [len(row) for row in rows]
        usual = max(set(counts), key=counts.count) if counts else 1
        return (counts.count(usual) / len(counts) if usual > 1 else 0.0), usual

    return max(",;\t|", key=score)


def _is_header(row: list[str]) -> bool:
    """Names: all filled, all different, none a number."""
    cells = [cell.strip() for cell in row]
    numbers = any(cell.replace(".", "", 1).replace(",", "").lstrip("-").isdigit() for cell in cells)
    return all(cells) and len(set(cells)) == len(cells) and not numbers
