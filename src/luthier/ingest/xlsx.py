"""Excel workbooks (XLSX): each sheet a heading and tables in blocks of rows; page is the sheet's number."""

from __future__ import annotations

import datetime
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from luthier.ingest._blocks import clean_lines, table
from luthier.ingest._office import check_archive, dangers, properties, tell_damage
from luthier.ingest.base import NO, READERS, SURE, Refused, Source
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

MAX_ROWS = 1_048_576
"""Of a sheet, in Excel itself."""


@register(READERS, "xlsx")
class XlsxReader(Spec):
    """Workbooks: the values the cells show; a formula that was never calculated is shown as itself."""

    rows_per_block: int = Field(default=25, ge=1)
    """Rows in one span; the header is repeated on each."""
    hidden_sheets: bool = False
    """Also read sheets that are hidden."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        return SURE if "xl/workbook.xml" in source.members or "xl/workbook.bin" in source.members else NO

    def read(self, source: Source) -> Iterator[Document]:
        if "xl/workbook.bin" in source.members:
            raise Refused("unsupported", "binary Excel (XLSB): save it as XLSX")
        check_archive(source)
        with tell_damage(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions it does not know
            import openpyxl

            book = openpyxl.load_workbook(source.path, read_only=True, data_only=True)
            formulas = openpyxl.load_workbook(source.path, read_only=True) if _has_formulas(source) else None
            meta = properties(book.properties) | dangers(source)
            hidden = []
            spans: list[Span] = []
            sheets = book.worksheets
            for number, sheet in enumerate(sheets[:source.max_pages], 1):
                if sheet.sheet_state != "visible" and not self.hidden_sheets:
                    hidden.append(sheet.title)
                else:
                    other = formulas[sheet.title] if formulas is not None else None
                    spans += self._sheet(sheet, other, number)
        meta |= {"pages": len(sheets), "hidden_sheets": hidden,
                 "pages_skipped": max(len(sheets) - (source.max_pages or len(sheets)), 0) or None}
        yield source.document(
            reader="xlsx", media="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            spans=spans, title=meta.pop("title", "") or _stem(source), meta=meta)

    def _sheet(self, sheet: Any, formulas: Any, number: int) -> Iterator[Span]:
        """Runs of filled rows are tables of their own; a single filled cell above one is a line of text."""
        blocks = list(_blocks(sheet, formulas))
        if blocks:
            yield Span(text=sheet.title, kind="heading", level=1, page=number)
        for first, rows in blocks:
            if all(sum(bool(cell) for cell in row) <= 1 for row in rows):
                text = "\n".join(cell for row in rows for cell in row if cell)
                yield Span(text=clean_lines(text), page=number, line=first)
                continue
            while sum(bool(cell) for cell in rows[0]) == 1 and len(rows) > 1:  # a title right above the header
                yield Span(text=clean_lines("".join(rows[0])), page=number, line=first)
                first, rows = first + 1, rows[1:]
            header, body = rows[0], rows[1:]
            for start in range(0, max(len(body), 1), self.rows_per_block):
                text = table([header, *body[start:start + self.rows_per_block]])
                if text:
                    yield Span(text=text, kind="table", page=number, line=first + 1 + start if start else first)


def _stem(source: Source) -> str:
    return source.name.rpartition("/")[2].rpartition(".")[0]


def _has_formulas(source: Source) -> bool:
    """Does any sheet hold a formula? Only then the workbook is opened a second time."""
    with zipfile.ZipFile(source.path) as archive:
        for name in source.members:
            if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                with archive.open(name) as part:
                    tail = b""
                    while chunk := part.read(1 << 20):
                        if b"<f>" in tail + chunk or b"<f " in tail + chunk:
                            return True
                        tail = chunk[-3:]
    return False


def _blocks(sheet: Any, formulas: Any) -> Iterator[tuple[int, list[list[str]]]]:
    """Runs of rows without an empty row between, with the number of their first row."""
    sheet.reset_dimensions()  # the size that the file states is often wrong
    rows = sheet.iter_rows()
    others = iter(())
    if formulas is not None:
        formulas.reset_dimensions()
        others = formulas.iter_rows(values_only=True)
    block: list[list[str]] = []
    first = 0
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:  # a row number that no program writes; the reader would count up to it
            break
        raw = next(others, ()) if formulas is not None else ()
        line = [_shown(cell, raw[i] if i < len(raw) else None) for i, cell in enumerate(row)]
        while line and not line[-1]:
            line.pop()
        if line:
            first = first if block else number
            block.append(line)
        elif block:
            yield first, block
            block = []
    if block:
        yield first, block


def _shown(cell: Any, formula: Any) -> str:
    """The value as a person sees it: dates as ISO, per cent as per cent, numbers without a tail of digits."""
    value = cell.value
    if value is None:
        return formula if isinstance(formula, str) and formula.startswith("=") else ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        form = cell.number_format or ""
        return f"{value * 100:.6g}%" if "%" in form else str(value) if isinstance(value, int) else f"{value:.10g}"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time.min
        return value.date().isoformat() if midnight else value.isoformat(" ", "minutes")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value).strip()
