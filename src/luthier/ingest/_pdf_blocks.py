"""From a PDF's lines to paragraphs, headings, lists, code and tables, over all pages of the document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import dedent

from luthier.ingest._blocks import clean, list_item, table
from luthier.ingest._pdf_layout import MARKER, Line
from luthier.types import Span

_NUMBER = re.compile(r"^\(?(?:\d{1,3}|[a-z]|[ivx]{1,4})[.)]\s+\S")
_BULLET = re.compile(r"^([•‣◦▪●■□○❖➢✓]|[–—*·-](?=\s))\s*(?=\S)")
_SECTION = re.compile(r"^(?:(?:chapter|section|appendix|part)\s+)?[A-Z\d]{1,3}(?:\.\d{1,3})*\.?\s+\S", re.IGNORECASE)
_CAPTION = re.compile(r"(?:Figure|Fig\.|Table|Abb\.|Abbildung|Tabelle)\s+\d")
_HEADING_NUMBER = re.compile(r"^\d{1,2}(?:\.\d{1,2})*\.?\s+[^\W\d_]")
_STEP = re.compile(r"^\(?(\d{1,3})[.)]\s+\S")
_ENDED = re.compile(r"[.!?:;)\]\"”]$")


@dataclass
class Block:
    """Lines that belong together on one page."""

    page: int
    lines: list[Line]
    item: bool = False

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def chars(self) -> int:
        return sum(len(line.text) for line in self.lines)


@dataclass(frozen=True)
class Bookmark:
    """An entry of the document's own outline."""

    title: str
    level: int
    page: int


def blocks_of(page: int, lines: Sequence[Line]) -> list[Block]:
    """Cut a page's lines, in reading order, into blocks."""
    _fit_regions(lines)
    gaps = sorted(b.top - a.bottom for a, b in pairwise(lines)
                  if a.region == b.region and not a.rows and not b.rows and 0 <= b.top - a.bottom < 2 * b.size)
    usual = gaps[len(gaps) // 6] if gaps else 2.0  # a low quantile: gaps inside paragraphs, not between
    sizes = sorted(line.size for line in lines)
    wide = usual + 0.45 * (sizes[len(sizes) // 2] if sizes else 10.0)
    blocks: list[Block] = []
    for before, line in zip([None, *lines], lines):
        if before is None or _starts_block(before, line, blocks[-1], wide):
            blocks.append(Block(page, [line], item=_is_item(line)))
        else:
            blocks[-1].lines.append(line)
    return blocks


def _fit_regions(lines: Sequence[Line]) -> None:
    """Columns as wide as what is left in them: page numbers and headers stood outside the text."""
    groups: dict[tuple[float, float], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.region, []).append(line)
    for group in groups.values():
        region = (min(line.x0 for line in group), max(line.x1 for line in group))
        for line in group:
            line.region = region


def _is_item(line: Line) -> bool:
    return line.rows is None and (line.marker or bool(_BULLET.match(line.text)))


def _starts_block(before: Line, line: Line, block: Block, wide: float) -> bool:
    if before.rows is not None or line.rows is not None or before.region != line.region:
        return True
    gap = line.top - before.bottom
    if gap > wide or gap < -0.8 * line.size:
        return True
    if abs(before.size - line.size) > 0.12 * max(before.size, line.size) and not (before.mono or line.mono):
        return True
    if _is_item(line) or (_NUMBER.match(line.text) and (block.item or _ENDED.search(before.text))):
        return True
    step, first = _STEP.match(line.text), _STEP.match(block.first.text)
    if step and first and int(step.group(1)) == int(first.group(1)) + 1:
        return True
    if before.mono != line.mono and (len(block.lines) > 1 or before.x1 < line.x1 - 40):
        return all(one.mono for one in block.lines) or (line.mono and bool(_ENDED.search(before.text)))
    if line.size > 1.1 * before.size or (_HEADING_NUMBER.match(line.text) and before.bold and line.bold):
        return True
    if block.item and line.x0 < block.first.text_x0 - 3:
        return True
    width = line.region[1] - line.region[0]
    short = before.x1 < line.region[1] - 0.15 * width
    if before.bold and not line.bold and short and not re.match(r"[a-z]", line.text) and len(before.text) < 100:
        return True
    indented = line.x0 - line.region[0] > 0.8 * line.size and before.x0 - before.region[0] < 0.5 * line.size
    return bool(_ENDED.search(before.text)) and (short or (indented and not block.item))


def spans_of(blocks: Sequence[Block], bookmarks: Sequence[Bookmark], apart: Collection[int] = ()) -> list[Span]:
    """Spans of the whole document: heading levels come from the outline and from the font sizes in it.

    No sentence or table is carried over to or from the pages `apart`: their text is wrong, and must not hide in that of
    the page before.
    """
    body = _body_size(blocks)
    words = Counter(word.lower() for block in blocks for line in block.lines
                    for word in re.findall(r"[\w-]+", line.text))
    levels = _heading_levels(blocks, bookmarks, body)
    _find_numbered_items(blocks, levels)
    spans: list[Span] = []
    items: list[tuple[Block, str]] = []
    for position, block in enumerate(blocks):
        level = levels.get(position, 0)
        if items and (not block.item or level or block.page != items[-1][0].page):
            spans.append(_list(items))
            items = []
        if level:
            spans.append(_span(block, clean(_flow(block.lines, words)), "heading", level))
        elif block.first.rows is not None:
            before = blocks[position - 1] if position else None
            alone = before is not None and before.page != block.page and bool({before.page, block.page} & {*apart})
            if before is not None and not alone and spans and spans[-1].kind == "table" and _same_table(before, block):
                rows = block.first.rows = _without_header(before.first.rows or [], block.first.rows)
                spans[-1] = replace(spans[-1], text=spans[-1].text + "\n" + "\n".join(_body(before, rows)))
                block.first.rows = [(before.first.rows or [[]])[0], *rows]
            else:
                spans += _table(block)
        elif block.item:
            items.append((block, _flow(block.lines, words)))
        elif all(line.mono for line in block.lines):
            if spans and spans[-1].kind == "code" and spans[-1].page == block.page:
                spans[-1] = _grown(spans[-1], block, f"{spans[-1].text}\n{_code(block)}")
            else:
                spans.append(_span(block, _code(block), "code"))
        else:
            text = _flow(block.lines, words)
            alone = bool(spans) and spans[-1].page != block.page and bool({spans[-1].page, block.page} & {*apart})
            if spans and not alone and _continues(spans[-1], block, text):
                spans[-1] = _grown(spans[-1], block, clean(_glue(spans[-1].text, text, words)))
            else:
                caption = len(text) < 250 and _CAPTION.match(text)
                spans.append(_span(block, text, "caption" if caption else "paragraph"))
    if items:
        spans.append(_list(items))
    return [replace(span, text=dedent(span.text)) if span.kind == "code" else span for span in spans]


def _find_numbered_items(blocks: Sequence[Block], levels: Mapping[int, int]) -> None:
    """Blocks of running text that begin with following numbers are the items of one list."""
    for position, (block, after) in enumerate(pairwise(blocks)):
        if levels.get(position) or levels.get(position + 1) or block.first.rows or after.first.rows:
            continue
        one, two = _STEP.match(block.first.text), _STEP.match(after.first.text)
        if one and two and int(two.group(1)) == int(one.group(1)) + 1:
            block.item = after.item = True


def _body_size(blocks: Iterable[Block]) -> float:
    sizes: Counter[float] = Counter()
    for block in blocks:
        for line in block.lines:
            if line.rows is None:
                sizes[round(line.size * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 10.0


def _heading_levels(blocks: Sequence[Block], bookmarks: Sequence[Bookmark], body: float) -> dict[int, int]:
    """Level by position in `blocks`, for those that are headings."""
    outline: dict[tuple[str, int], int] = {}
    for mark in bookmarks:
        for page in (mark.page, mark.page + 1):
            outline.setdefault((_plain(mark.title), page), mark.level)
    named: dict[int, int] = {}
    styled: dict[int, tuple[float, bool]] = {}
    for position, block in enumerate(blocks):
        if block.first.rows is not None or block.chars > 200 or len(block.lines) > 4 or block.chars < 2:
            continue
        text = " ".join(line.text for line in block.lines)
        style = (round(block.first.size * 2) / 2, block.first.bold)
        known = outline.get((_plain(text), block.page))
        if known is not None:
            named[position], styled[position] = known, style
            continue
        if not re.search(r"[^\W\d_]{2}", text) or _BULLET.match(text) or (block.item and not _SECTION.match(text)):
            continue
        after = blocks[position + 1] if position + 1 < len(blocks) else None
        larger = block.first.size >= 1.14 * body
        bold = (block.first.bold and block.first.size >= 0.94 * body and len(block.lines) <= 2 and block.chars <= 110
                and all(line.bold for line in block.lines) and after is not None
                and not (after.first.bold and after.first.rows is None and not styled_as_heading(after, body))
                and not _CAPTION.match(text) and not block.first.mono and not re.match(r"[a-z]", text)
                and not (after.page == block.page and re.match(r"[a-z]", after.first.text)))
        if ((larger or bold) and not re.search(r"[.,;:]$", text.rstrip())) or (larger and block.first.bold):
            styled[position] = style
    if not styled:
        return {}
    ranked = sorted(set(styled.values()), key=lambda style: (-style[0], not style[1]))
    by_style = {style: min(rank, 6) for rank, style in enumerate(ranked, 1)}
    if len(named) >= 3:  # the outline knows the level of a style better than its size does
        votes: dict[tuple[float, bool], Counter[int]] = {}
        for position, level in named.items():
            votes.setdefault(styled[position], Counter())[level] += 1
        told = {style: counts.most_common(1)[0][0] for style, counts in votes.items()}
        deepest = max(told.values())
        for style in ranked:
            larger_than = [level for other, level in told.items() if other[0] <= style[0]]
            by_style[style] = told.get(style) or (min(larger_than) if larger_than else min(deepest + 1, 6))
    return {position: named.get(position, by_style[style]) for position, style in styled.items()}


def styled_as_heading(block: Block, body: float) -> bool:
    """Two headings may follow each other: the second is larger than the text, or numbered."""
    return block.first.size >= 1.14 * body or bool(_SECTION.match(block.first.text) and block.chars < 110)


def _plain(text: str) -> str:
    text = re.sub(r"(?i)^(?:(?:chapter|section|appendix)\s+)?[\dA-Z]{1,3}(?:\.\d+)*[.:)]?\s+", "", text)
    return re.sub(r"\W+", "", text).lower()


def _continues(last: Span, block: Block, text: str) -> bool:
    """A sentence that a page or column break cut in two."""
    if last.kind != "paragraph" or last.page is None or last.box is None or not 0 <= block.page - last.page <= 1:
        return False
    if block.page == last.page and block.first.top > last.box[1]:
        return False  # further down the same column: a gap in the text, not a break
    return not _ENDED.search(last.text) and bool(re.match(r"[a-zß-öø-ÿ(]", text))


def _grown(last: Span, block: Block, text: str) -> Span:
    """The span with a further block's text; its box stays on its own page."""
    boxes = [line.box for line in block.lines] if block.page == last.page else []
    return replace(last, text=text, box=_union([last.box, *boxes]) if last.box else None)


def _flow(lines: Sequence[Line], words: Counter[str]) -> str:
    text = lines[0].text
    for line in lines[1:]:
        text = _glue(text, line.text, words)
    return clean(text)


def _glue(text: str, more: str, words: Counter[str]) -> str:
    """Two lines as one; a word parted by a hyphen is whole again unless the document writes it with the hyphen."""
    end = re.search(r"([^\W\d_]+)[-‐\u00ad\u0002\ufffe]$", text)
    start = re.match(r"[^\W\d_]+", more)
    if end and start and start.group()[0].islower():
        whole, hyphened = (end.group(1) + start.group()).lower(), f"{end.group(1)}-{start.group()}".lower()
        return f"{text[:-1]}-{more}" if words[hyphened] > words[whole] else text[:-1] + more
    return f"{text} {more}"


def _code(block: Block) -> str:
    left = block.first.region[0]
    longest = max(block.lines, key=lambda line: len(line.text))
    width = max((longest.x1 - longest.text_x0) / max(len(longest.text), 1), 1)  # of one character
    return "\n".join(" " * max(0, round((line.x0 - left) / width)) + line.text for line in block.lines)


def _list(items: list[tuple[Block, str]]) -> Span:
    def indent(block: Block) -> int:
        return round((block.first.x0 - block.first.region[0]) / 6)

    left = sorted({indent(block) for block, _ in items})
    texts = []
    for block, text in items:
        depth = min(left.index(indent(block)), 3)
        first, _, rest = text.partition(" ")
        if MARKER.match(first) and rest:
            marker = first.strip("()") if first[-1] in ".)" else "-"
            marker = marker if marker == "-" else marker.rstrip(".)") + "."
        else:
            marker, rest = "-", _BULLET.sub("", text)
        texts.append(list_item(rest, depth, marker))
    boxes = [line.box for block, _ in items for line in block.lines]
    return Span(text="\n".join(texts), kind="list", page=items[0][0].page, box=_union(boxes))


def _same_table(before: Block, block: Block) -> bool:
    """A table that goes on at the top of the next page: the same edges and as many columns."""
    a, b = before.first, block.first
    return (a.rows is not None and b.rows is not None and block.page == before.page + 1
            and len(a.rows[0]) == len(b.rows[0]) and abs(a.x0 - b.x0) < 3 and abs(a.x1 - b.x1) < 3)


def _without_header(above: list[list[str]], rows: list[list[str]]) -> list[list[str]]:
    """Rows without the header that many programs repeat on each page."""
    return rows[1:] if above and rows and rows[0] == above[0] else rows


def _body(before: Block, rows: list[list[str]]) -> list[str]:
    """Further rows as Markdown, shaped by the table's header."""
    header = (before.first.rows or [[]])[0]
    return table([header, *rows]).split("\n")[2:]


def _table(block: Block) -> list[Span]:
    text = table(block.first.rows or [])
    return [_span(block, text, "table")] if text else []


def _span(block: Block, text: str, kind: str, level: int = 0) -> Span:
    box = _union([line.box for line in block.lines])
    return Span(text=text, kind=kind, level=level, page=block.page, box=box)  # type: ignore[arg-type]


def _union(boxes: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    return (round(min(b[0] for b in boxes), 1), round(min(b[1] for b in boxes), 1),
            round(max(b[2] for b in boxes), 1), round(max(b[3] for b in boxes), 1))
