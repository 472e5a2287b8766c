"""Fields by rules: a label and the value beside or below it, patterns, types. Every value is a piece of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from luthier.triage.base import Field
from luthier.types import Document

_MONTH = (r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-zä]*\.?")
TYPES = {
    "number": r"(?<![\w.,])[-+]?\d+(?:[.,' ]\d{3})*(?:[.,]\d+)?(?!\w)",
    "amount": r"(?<![\w.,/])[-+]?(?:(?:[A-Z]{2,3}|[$€£])\s?)?\d{1,3}(?:(?:[,.' ]\d{3})+|\d*)[.,]\d{2}(?![\w/]|[.,]\d)",
    "date": rf"(?<!\d)(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](?:\d{{4}}|\d{{2}})(?!\d)|"
            rf"\d{{1,2}}\.?(?:st|nd|rd|th)?[ -]{_MONTH}[ -,]+\d{{2,4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})",
    "email": r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
}
DISTINCT = ("date", "email", "iban")
"""Types that are looked for by themselves where neither a label nor a pattern is found."""
_BETWEEN = r"[ \t]*(?:(?:[:#=–.|]|-(?!\d))[ \t]*)*"


@dataclass(frozen=True)
class Value:
    """A field's value and where it stands."""

    value: str
    """White space made single."""
    quote: str
    """The document's own characters: `spans[span].text[start:end]`."""
    method: str
    """label, pattern, type, release or chat."""
    span: int
    start: int
    end: int
    page: int | None
    line: int | None
    """In the file; where the reader joined lines of a paragraph, its first one."""
    box: tuple[float, float, float, float] | None
    """Of the span, in PDF points."""
    read: float
    """How sure the reader was of these characters, 0 to 1; 1 for a digital text."""

    def data(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Line:
    text: str
    span: int
    start: int


def find(document: Document, field: Field) -> Value | None:
    """The field's value by label, else by pattern, else by its type alone."""
    if field.labels:
        for label in field.labels:
            values = list(_by_label(document, label, field))
            if values:
                return _take(values, field)
    if field.pattern:
        values = list(_by_pattern(document, field))
        if values:
            return _take(values, field)
    if field.type in DISTINCT or (field.type != "text" and not field.labels and not field.pattern):
        values = [_value(document, "type", number, match.start(), match.end())
                  for number, span in enumerate(document.spans) for match in _typed(field).finditer(span.text)]
        if values:
            return _take(values, field)
    return None


def quoted(document: Document, text: str, field: Field, method: str) -> Value | None:
    """The first place where a text stands in the document (white space aside), of the field's type; None where it does
    not: what a model made up is not a value."""
    words = text.split()
    if not words:
        return None
    wanted = re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
    for number, span in enumerate(document.spans):
        match = wanted.search(span.text)
        if match:
            inner = _typed(field).search(match.group())
            if inner is None:
                return None
            return _value(document, method, number, match.start() + inner.start(), match.start() + inner.end())
    return None


def _typed(field: Field) -> re.Pattern[str]:
    return re.compile(TYPES.get(field.type, r"\S(?:.*\S)?"), re.IGNORECASE if field.type in ("date", "email") else 0)


def _lines(document: Document) -> list[_Line]:
    found = []
    for number, span in enumerate(document.spans):
        at = 0
        for text in span.text.split("\n"):
            found.append(_Line(text, number, at))
            at += len(text) + 1
    return found


def _by_label(document: Document, label: str, field: Field) -> Iterator[Value]:
    words = r"\s+".join(map(re.escape, label.split()))
    wanted = re.compile(rf"(?<!\w){words}(?!\w){_BETWEEN}", re.IGNORECASE)
    typed = _typed(field)
    lines = [line for line in _lines(document) if line.text.strip()]
    for at, line in enumerate(lines):
        if line.text.lstrip().startswith("|"):
            yield from _in_table(document, lines, at, re.compile(rf"^{words}$", re.IGNORECASE), typed)
            continue
        match = wanted.search(line.text)
        if match is None or (field.type == "text" and match.start() > 0 and line.text[: match.start()].strip()):
            continue  # of free text, the label must begin the line
        rest = line.text[match.end() :]
        if rest.strip():
            if field.type == "text" and match.group().rstrip()[-1:] not in ":#=-–|.":
                continue  # "total sales" is no "total": free text needs a sign between
            value = typed.match(rest) if field.type == "text" else re.compile(
                rf"[^\w\d+-]*?({typed.pattern})", typed.flags).match(rest)
            if value:
                group = 1 if value.re.groups else 0
                yield _value(document, "label", line.span, line.start + match.end() + value.start(group),
                             line.start + match.end() + value.end(group))
        elif at + 1 < len(lines):
            below = lines[at + 1]
            value = typed.search(below.text)
            if value and not below.text[: value.start()].strip(" $€£:RM"):
                yield _value(document, "label", below.span, below.start + value.start(), below.start + value.end())


def _in_table(document: Document, lines: list[_Line], at: int, wanted: re.Pattern[str], typed: re.Pattern[str]
              ) -> Iterator[Value]:
    cells = _cells(lines[at])
    for place, (text, _) in enumerate(cells):
        if not wanted.match(text.strip().strip("*:#. ")):
            continue
        header = at + 1 < len(lines) and set(lines[at + 1].text) <= set("|-: ")
        beside = [(lines[at], cells[place + 1])] if place + 1 < len(cells) and not header else []
        below = []
        if header:
            for line in lines[at + 2 :]:
                row = _cells(line)
                if not line.text.lstrip().startswith("|") or place >= len(row):
                    break
                below.append((line, row[place]))
        for line, (value, start) in [*beside, *below]:
            match = typed.search(value)
            if match:
                yield _value(document, "label", line.span, line.start + start + match.start(),
                             line.start + start + match.end())


def _cells(line: _Line) -> list[tuple[str, int]]:
    """(text, first character) of each cell of a Markdown row."""
    found, at = [], line.text.index("|") + 1 if "|" in line.text else 0
    for part in line.text[at:].rstrip().removesuffix("|").split("|"):
        found.append((part, at))
        at += len(part) + 1
    return found


def _by_pattern(document: Document, field: Field) -> Iterator[Value]:
    wanted, typed = re.compile(field.pattern or "", re.IGNORECASE | re.MULTILINE), _typed(field)
    for number, span in enumerate(document.spans):
        for match in wanted.finditer(span.text):
            group = 1 if wanted.groups and match.group(1) else 0
            inner = typed.search(match.group(group)) if field.type != "text" else None
            if field.type != "text" and inner is None:
                continue
            start = match.start(group) + (inner.start() if inner else 0)
            end = match.start(group) + inner.end() if inner else match.end(group)
            if span.text[start:end].strip():
                yield _value(document, "pattern", number, start, end)


def _value(document: Document, method: str, number: int, start: int, end: int) -> Value:
    span = document.spans[number]
    quote = span.text[start:end]
    start, end = start + len(quote) - len(quote.lstrip()), end - (len(quote) - len(quote.rstrip()))
    quote = span.text[start:end]
    line = span.line + span.text.count("\n", 0, start) if span.line is not None else None
    return Value(" ".join(quote.split()), quote, method, number, start, end, span.page, line, span.box, span.confidence)


def _take(values: list[Value], field: Field) -> Value:
    if field.take == "largest":
        return max(values, key=lambda value: number_of(value.value))
    return values[-1 if field.take == "last" else 0]


def number_of(text: str) -> float:
    """A written number or amount: the last of two different signs is the decimal one; a sign that stands before
    exactly three digits at the end groups thousands."""
    digits = re.sub(r"[^\d.,-]", "", text).strip(".,")
    negative, digits = digits.startswith("-"), digits.replace("-", "")
    cut = max(digits.rfind("."), digits.rfind(","))
    if cut >= 0 and (len(digits) - cut - 1 != 3 or len({sign for sign in digits if sign in ".,"}) == 2):
        whole, part = re.sub(r"[.,]", "", digits[:cut]), digits[cut + 1 :]
    else:
        whole, part = re.sub(r"[.,]", "", digits), ""
    try:
        return (-1 if negative else 1) * float(f"{whole or 0}.{part or 0}")
    except ValueError:
        return float("-inf")
