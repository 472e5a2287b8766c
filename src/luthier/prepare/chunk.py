"""Cutting documents into passages along their structure.

A passage never crosses a heading of the top levels, tables and lists are cut between rows and items (a table repeats
its header), and prose between sentences. Sizes are estimated tokens (`luthier.index.tokens`), so no model is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field, model_validator

from luthier.index.tokens import estimate_tokens
from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.text import sentences
from luthier.spec import Spec
from luthier.types import Document, Dropped, Passage, Span, digest

VERSION = 1

_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)]|[a-z][.)])\s", re.MULTILINE)
_RULE = re.compile(r"^\s*\|?[\s:|-]*-[\s:|-]*\|?\s*$")


class Chunk(Spec):
    """Cutting documents into passages."""

    max_tokens: int = Field(default=220, ge=32, le=8000)
    """Largest passage in estimated tokens, its title and headings included. all-MiniLM-L6-v2 reads 256."""
    overlap: int = Field(default=0, ge=0)
    """Tokens of whole sentences that a passage repeats from the one before it, when one section fills several."""
    heading_levels: int = Field(default=3, ge=0, le=9)
    """Headings down to this level begin a new passage; deeper ones stay in the text. 0 ignores headings."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunk:
        if self.overlap * 2 > self.max_tokens:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of max_tokens ({self.max_tokens})")
        return self

    def apply(self, items: Iterable[Document], ctx: StepContext) -> Iterator[Kept[Passage] | Dropped]:
        """Yield each document's passages in reading order; a document without text is dropped as `no-text`."""
        for document in items:
            seen: Counter[str] = Counter()
            for section in self._sections(document):
                for chunk in self._pack(section, document.title):
                    text = "".join(piece.join + piece.text for piece in chunk)[len(chunk[0].join):].strip()
                    if not text:
                        continue
                    key = digest(document.path, *section.heading, text)
                    seen[key] += 1  # the same words twice under one heading are two passages until de-duplication
                    first, last = chunk[0].span, chunk[-1].span
                    if section.start is not None and chunk[0].opens:
                        first = min(first, section.start)
                    source = document.spans[chunk[0].span]
                    yield Kept(Passage(
                        id=key if seen[key] == 1 else digest(key, str(seen[key])),
                        document=document.id, path=document.path, title=document.title, heading=section.heading,
                        text=text, spans=(first, last + 1), page=source.page, line=source.line,
                    ))
            if not seen:
                yield Dropped(item=document.id, step="chunk", reason="no-text", detail=document.path)

    def _sections(self, document: Document) -> Iterator[_Section]:
        """Runs of spans under one heading path. A heading with nothing below it is text of the section around it."""
        path: list[tuple[int, str]] = []
        section = _Section(heading=(), start=None, spans=[])
        for at, span in enumerate(document.spans):
            if not span.text.strip():
                continue
            if span.kind != "heading" or span.level > self.heading_levels or self._is_bare(document.spans, at):
                section.spans.append((at, span))
                continue
            if section.spans:
                yield section
                begins = at
            else:
                begins = at if section.start is None else section.start  # `1 Safety` directly above `1.1 Gloves`
            path = [(level, text) for level, text in path if level < span.level]
            path.append((span.level, " ".join(span.text.split())))
            section = _Section(heading=tuple(text for _, text in path), start=begins, spans=[])
        if section.spans:
            yield section

    @staticmethod
    def _is_bare(spans: tuple[Span, ...], at: int) -> bool:
        """Whether no text follows before the next heading of the same or a higher level."""
        for after in spans[at + 1 :]:
            if not after.text.strip():
                continue
            if after.kind != "heading":
                return False
            if after.level <= spans[at].level:
                return True
        return True

    def _pack(self, section: _Section, title: str) -> Iterator[list[_Piece]]:
        """Fill passages with pieces, about equally, none over the limit."""
        head = estimate_tokens(" > ".join(dict.fromkeys(part for part in (title, *section.heading) if part)))
        budget = self.max_tokens - min(head, self.max_tokens // 2)
        pieces = [piece for at, span in section.spans for piece in cut(span, at, budget)]
        if pieces:
            pieces[0].opens = True
        total = sum(piece.tokens for piece in pieces)
        target = total / -(-total // budget) if total else 0
        chunk: list[_Piece] = []
        size = 0
        for piece in pieces:
            fitted = piece.following(chunk)
            if chunk and (size + fitted.tokens > budget or size + fitted.tokens / 2 > target):
                yield chunk
                opening = piece.following([])
                chunk = self._repeated(chunk, budget - opening.tokens)
                size = sum(repeated.tokens for repeated in chunk)
                fitted = opening
            chunk.append(fitted)
            size += fitted.tokens
        if chunk:
            yield chunk

    def _repeated(self, chunk: list[_Piece], room: int) -> list[_Piece]:
        kept: list[_Piece] = []
        left = min(self.overlap, room)
        for piece in reversed(chunk):
            if piece.tokens > left or piece.header:  # a repeated row without its header would mislead
                break
            kept.insert(0, _Piece(piece.text, piece.span, piece.join, piece.tokens))
            left -= piece.tokens
        return kept


@dataclass
class _Section:
    heading: tuple[str, ...]
    start: int | None
    """Span of the first heading that leads to this section."""
    spans: list[tuple[int, Span]]


@dataclass
class _Piece:
    text: str
    span: int
    join: str
    """What stands between the piece before it and this one."""
    tokens: int
    header: str = ""
    """Header of the table whose row this is."""
    opens: bool = False
    """First piece of its section."""

    def following(self, chunk: list[_Piece]) -> _Piece:
        """This piece as it stands after `chunk`: a row brings its table's header unless a row before it did."""
        if not self.header or (chunk and chunk[-1].header == self.header and chunk[-1].span == self.span):
            return self
        text = f"{self.header}\n{self.text}"
        return _Piece(text, self.span, "\n\n", estimate_tokens(text), self.header, self.opens)


def cut(span: Span, at: int, budget: int) -> list[_Piece]:
    """A span as the smallest pieces that may be separated, each within `budget` estimated tokens."""
    text = span.text.strip("\n") if span.kind in ("code", "table") else span.text.strip()
    if span.kind == "heading":
        text = f"{'#' * max(1, span.level)} {text}"
    tokens = estimate_tokens(text)
    if tokens <= budget:
        return [_Piece(text, at, "\n\n", tokens)]
    if span.kind == "table":
        rows = _rows(text, at, budget)
        if rows:
            return rows
    parts: list[tuple[str, str]] = []
    if span.kind in ("list", "table", "code", "row"):
        parts = [("\n", line) for line in (_items(text) if span.kind == "list" else text.splitlines()) if line.strip()]
    else:
        parts = [("", piece) for piece in sentences(text)]
    pieces: list[_Piece] = []
    for join, part in parts:
        size = estimate_tokens(part)
        if size <= budget:
            pieces.append(_Piece(part, at, join, size))
        else:
            pieces.extend(_Piece(piece, at, join if not index else "", estimate_tokens(piece))
                          for index, piece in enumerate(_by_words(part, budget)))
    if pieces:
        pieces[0].join = "\n\n"
    return pieces


def _items(text: str) -> list[str]:
    """List items with their continuation lines."""
    starts = [match.start() for match in _ITEM.finditer(text)]
    if not starts or starts[0] != 0:
        starts.insert(0, 0)
    return [text[a:b].rstrip("\n") for a, b in zip(starts, [*starts[1:], len(text)])]


def _rows(text: str, at: int, budget: int) -> list[_Piece]:
    """Rows of a Markdown table; empty when it has none or the header leaves a row no room."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 3 or not _RULE.match(lines[1]):
        return []
    header = "\n".join(lines[:2])
    cost = estimate_tokens(header)
    if any(cost + estimate_tokens(row) > budget for row in lines[2:]):
        return []
    return [_Piece(row, at, "\n", estimate_tokens(row), header) for row in lines[2:]]


def _by_words(text: str, budget: int) -> Iterator[str]:
    """Pieces of whole words within the budget; a single word beyond it is cut between characters."""
    current, size = "", 0
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", text):
        for part in _halves(word, budget):
            tokens = estimate_tokens(part)
            # two halves of one cut word can count more together than apart
            together = size + tokens if part[:1].isspace() else estimate_tokens(current + part)
            if current and together > budget:
                yield current
                current, together = "", tokens
            current += part
            size = together
    if current:
        yield current


def _halves(word: str, budget: int) -> Iterator[str]:
    if estimate_tokens(word) <= budget or len(word) < 2:
        yield word
        return
    middle = len(word) // 2
    yield from _halves(word[:middle], budget)
    yield from _halves(word[middle:], budget)
