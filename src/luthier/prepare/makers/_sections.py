"""Sections of a document: a heading with the text that belongs to it alone, and titles as people would say them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from luthier.prepare.makers._text import one_line, plain, words
from luthier.types import Document, Span


@dataclass(frozen=True)
class Section:
    """A heading and the spans up to the next heading of any level."""

    heading: str
    """Plain text without numbering; empty for what stands before the first heading."""
    path: tuple[str, ...]
    """Headings above it, outermost first, the document's title left out."""
    start: int
    """Number of the heading's span (of the first span where there is no heading)."""
    end: int
    """One past the last span."""
    body: tuple[Span, ...]

    def text(self, *, tables: bool = False) -> str:
        """The body as plain text, paragraphs and lists apart by a blank line; tables and code only when asked for."""
        skipped = () if tables else ("table", "row")
        return "\n\n".join(filter(None, (plain(span.text) for span in self.body if span.kind not in skipped)))


def sections(document: Document) -> Iterator[Section]:
    """Every section in reading order, also those without a text of their own."""
    stack: list[tuple[int, str]] = []
    start, heading = 0, ""
    spans = document.spans
    for number, span in enumerate(spans):
        if span.kind != "heading":
            continue
        if number > start or heading:
            yield _section(document, stack, heading, start, number)
        heading = bare_heading(span.text)
        level = span.level or 1
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, heading))
        start = number
    if start < len(spans):
        yield _section(document, stack, heading, start, len(spans))


def _section(document: Document, stack: list[tuple[int, str]], heading: str, start: int, end: int) -> Section:
    title = one_line(document.title).casefold()
    above = tuple(text for _, text in stack[:-1] if text and text.casefold() != title) if heading else ()
    first = start + 1 if heading or (start < end and document.spans[start].kind == "heading") else start
    return Section(heading=heading, path=above, start=start, end=end, body=document.spans[first:end])


def bare_heading(text: str) -> str:
    """A heading without Markdown, numbering ("3.2", "§ 4", "Chapter 3:", "A.") and a closing colon."""
    text = one_line(text)
    text = re.sub(r"^(?:chapter|section|part|article|appendix|annex|kapitel|abschnitt|teil|artikel|anhang)\s+"
                  r"(?:\d+(?:\.\d+)*|[IVXLC]+|[A-Z])\s*[:.–—-]\s*(?=\S)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"^§+\s*\d+[a-z]?\s*[:.–—-]?\s*(?=\S)", "", text)
    text = re.sub(r"^(?:\d{1,2}(?:\.\d{1,3})+\.?|\d{1,2}[.)]|\(?[a-zA-Z][.)]|[IVX]{1,5}[.)])\s+(?=\S)", "", text)
    return text.rstrip(" :").strip()


def similar_heading(first: str, second: str) -> bool:
    """Whether one heading says no more than another."""
    a, b = set(words(first)), set(words(second))
    return bool(a) and (a <= b or b <= a)
