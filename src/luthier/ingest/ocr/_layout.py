"""From the lines that an engine found to pieces in reading order: columns, paragraphs, headings, lists, tables.

The order is a recursive cut at gutters (XY-cut, Nagy and Seth 1984) that lines across both columns may interrupt;
paragraphs are those of text PDFs (`_pdf_blocks`). Boxes are scaled so that the page's usual line is 12 units high.
Every piece names the lines it is made of, so that a corrected line finds its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.ingest._blocks import clean, list_item, table
from luthier.ingest._pdf_blocks import Block, _glue, blocks_of
from luthier.ingest._pdf_layout import Line, Run, _bands, _joined, _rows
from luthier.ingest.ocr.base import Box, TextLine

UNIT = 12.0
HEADING = 1.22
"""A line this much higher than the page's usual line heads what follows. Engines' boxes vary by a tenth."""
PADDED = 0.17
"""Line heights that a detector's box reaches beyond its text on either side: gutters are wider than they look."""
_BULLET = re.compile(r"^(?:[•‣◦▪●■□○❖➢✓·]\s*|[–—*-]\s+)(?=\S)")
_NUMBER = re.compile(r"^\(?(\d{1,3}|[a-zA-Z])[.)]\s+(?=\S)")

Parts = list[list[int]]
"""Rows of line numbers: the lines of a row stand beside each other."""


@dataclass(frozen=True)
class Piece:
    """A structural piece of a page."""

    kind: str
    level: int
    parts: list[Any]
    """Rows of line numbers (`markdown`: a table that an engine wrote as such, a line a row); for a list, such rows for
    each item; for a table, for each cell of each row. An empty row keeps a line break of the page."""

    def numbers(self) -> list[int]:
        return list(_flat(self.parts))


def _flat(value: Any) -> Any:
    for one in value:
        if isinstance(one, list):
            yield from _flat(one)
        else:
            yield one


def pieces_of(lines: Sequence[TextLine]) -> list[Piece]:
    """The page's pieces in reading order. Lines without boxes are taken in the order given."""
    if not lines:
        return []
    if any(line.box is None for line in lines):
        return _unplaced(lines)
    runs = _runs(lines)
    number = {id(run): at for at, run in enumerate(runs)}
    tables = _tables(runs, number)
    within = {id(run) for one, _ in tables for run in one.runs}
    cells = {id(one): parts for one, parts in tables}
    order = _ordered([*(Line([run]).settle() for run in runs if id(run) not in within), *(one for one, _ in tables)])
    found: list[Piece] = []
    items: list[Parts] = []
    for block in blocks_of(1, order):
        if block.first.rows is not None:
            found += _close(items)
            found.append(Piece("table", 0, cells[id(block.first)]))
            continue
        parts = _parts(block, number)
        if block.item or _NUMBER.match(block.first.text):
            items.append(parts)
            continue
        found += _close(items)
        level = _level(block)
        found.append(Piece("heading" if level else "paragraph", level, parts))
    return found + _close(items)


def _parts(block: Block, number: Mapping[int, int]) -> Parts:
    """The block's rows; an empty one where a line ends early and the next begins anew, as in addresses and forms."""
    left, right = min(line.x0 for line in block.lines), block.first.region[1]
    parts: Parts = []
    for before, line in zip([None, *block.lines], block.lines):
        early = before is not None and before.x1 < right - 0.25 * (right - left)
        if early and not re.match(r"[a-zß-öø-ÿ(]", line.text):
            parts.append([])
        parts.append([number[id(run)] for run in line.runs])
    return parts


def _close(items: list[Parts]) -> list[Piece]:
    """A list of the items so far; one numbered line alone is a paragraph."""
    found = [Piece("list" if len(items) > 1 else "paragraph", 0, [*items] if len(items) > 1 else items[0])] \
        if items else []
    items.clear()
    return found


def _runs(lines: Sequence[TextLine]) -> list[Run]:
    boxes = [line.box for line in lines if line.box is not None]
    heights = sorted(min(b[3] - b[1], b[2] - b[0]) for b in boxes)
    usual = max(heights[len(heights) // 2], 1.0)
    scale = UNIT / usual
    runs = []
    for line, (x0, top, x1, bottom) in zip(lines, boxes):
        high = (bottom - top) * scale
        middle = (top + bottom) / 2 * scale
        spare = min(PADDED * (bottom - top), (x1 - x0) / 4)
        x0, x1 = x0 + spare, x1 - spare
        usual_line = 0.6 * UNIT <= high < HEADING * UNIT
        size = UNIT / 1.2 if usual_line else high / 1.2  # a box is higher than its letters
        words = _words(line.text, x0 * scale, x1 * scale)
        runs.append(Run(line.text, x0 * scale, middle - size / 2, x1 * scale, middle + size / 2, size, False, False,
                        words))
    return runs


def _words(text: str, x0: float, x1: float) -> tuple[tuple[str, float, float], ...]:
    width = (x1 - x0) / max(len(text), 1)
    return tuple((match.group(), x0 + match.start() * width, x0 + match.end() * width)
                 for match in re.finditer(r"\S+", text))


GUTTER = 4.0
"""Units that must be free between two columns."""
ACROSS = 0.15
"""Share of a page's lines that may run across a gutter, such as titles."""


OVERHANG = 0.75 * UNIT
"""Units that a line's box may reach into the other column."""


def _ordered(pieces: list[Line]) -> list[Line]:
    """Lines and tables in reading order."""
    gutter = _gutter(pieces)
    if gutter is None:
        return _rows(_bands(pieces)) if pieces else []
    left, right = [one for one in pieces if _left_of(gutter, one)], [one for one in pieces if _right_of(gutter, one)]
    across = sorted((one for one in pieces if one not in left and one not in right), key=lambda one: one.top)
    # A title ends both columns; a caption or a quotation that both columns flow around ends none.
    inset = [one for one in across if _is_beside(one, left) and _is_beside(one, right)]
    rest = [*left, *right, *inset]
    found: list[Line] = []
    for blocker in [*(one for one in across if one not in inset), None]:
        above = [one for one in rest if blocker is None or one.top + one.bottom < blocker.top + blocker.bottom]
        rest = [one for one in rest if one not in above]
        found += _ordered([one for one in above if one in left])
        found += _ordered([one for one in above if one in right])
        found += _rows(_bands(among)) if (among := [one for one in above if one in inset]) else []
        found += _rows([[blocker]]) if blocker is not None else []
    return found


def _is_beside(one: Line, others: Sequence[Line]) -> bool:
    """Whether a piece stands at the height of another one, or between two of its lines."""
    return any(abs(one.top + one.bottom - two.top - two.bottom) < 1.8 * UNIT or (one.top < two.bottom and
               two.top < one.bottom) for two in others)


def _left_of(gutter: float, one: Line) -> bool:
    """Whether a piece belongs to the left column: detectors draw some boxes a little too wide."""
    return one.x1 <= gutter + min(OVERHANG, (one.x1 - one.x0) / 4) and one.x0 < gutter


def _right_of(gutter: float, one: Line) -> bool:
    return one.x0 >= gutter - min(OVERHANG, (one.x1 - one.x0) / 4) and one.x1 > gutter


def _gutter(pieces: Sequence[Line]) -> float | None:
    """Where two columns of running text part; None where there is one column."""
    best: tuple[float, float] = (0.0, 0.0)
    found = None
    for edge in {one.x1 for one in pieces}:
        starts = [one.x0 for one in pieces if one.x0 >= edge]
        at = (edge + min(starts)) / 2 if starts else edge
        across = sum(one.x0 < at < one.x1 for one in pieces)
        left = [one for one in pieces if one.x1 <= at]
        right = [one for one in pieces if one.x0 >= at]
        wide = min(starts) - max((one.x1 for one in left), default=0.0) if starts else 0.0
        if min(len(left), len(right)) < 3 or across > ACROSS * len(pieces) or wide < GUTTER:
            continue
        beside = min(_num_beside(left, right), _num_beside(right, left))
        if beside >= 3 and min(_wordy(left), _wordy(right)) >= 12 and (beside - 2 * across, wide) > best:
            best, found = (beside - 2.0 * across, wide), at
    return found


def _num_beside(some: Sequence[Line], others: Sequence[Line]) -> int:
    """How many pieces have another one at their own height."""
    return sum(any(min(one.bottom, two.bottom) - max(one.top, two.top) > 3 for two in others) for one in some)


def _wordy(pieces: Sequence[Line]) -> float:
    """Mean characters; a table counts as a line of text."""
    return sum(len(one.text) if one.rows is None else 40 for one in pieces) / len(pieces)


def _level(block: Block) -> int:
    """1 or 2 for a heading, by height over the usual line; 0 for text."""
    ratio = block.first.size * 1.2 / UNIT
    text = " ".join(line.text for line in block.lines)
    if ratio < HEADING or len(text) > 150 or len(block.lines) > 3 or re.search(r"[.,;]$", text):
        return 0
    return (1 if ratio >= 1.7 else 2) if re.search(r"[^\W\d_]{3}", text) else 0


# --------------------------------------------------------------------------------------------------------- tables


def _tables(runs: Sequence[Run], number: Mapping[int, int]) -> list[tuple[Line, list[list[Parts]]]]:
    """Runs of rows whose cells stand in common columns."""
    rows = _table_candidates(runs)
    found = []
    start = 0
    while start < len(rows):
        end, columns = _table_rows(rows, start)
        if not columns:
            start += 1
            continue
        cells: list[list[list[Run]]] = []
        bottom = 0.0
        for row in rows[start:end]:
            line: list[list[Run]] = [[] for _ in columns]
            for run in row:
                line[_column(columns, run)].append(run)
            if cells and not line[0] and sum(map(bool, line)) == 1 and row[0].top - bottom < 0.5 * UNIT:
                cells[-1] = [above + more for above, more in zip(cells[-1], line)]  # a cell of two lines
            else:
                cells.append(line)
            bottom = max(run.bottom for run in row)
        inside = [run for row in rows[start:end] for run in row]
        parts = [[[[number[id(run)]] for run in cell] for cell in row] for row in cells]
        texts = [[" ".join(run.text for run in cell) for cell in row] for row in cells]
        made = Line(inside, x0=min(r.x0 for r in inside), top=min(r.top for r in inside),
                    x1=max(r.x1 for r in inside), bottom=max(r.bottom for r in inside), rows=texts, size=10.0)
        found.append((made, parts))
        start = end
    return found


def _table_candidates(runs: Sequence[Run]) -> list[list[Run]]:
    rows: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (run.top + run.bottom, run.x0)):
        middle = (run.top + run.bottom) / 2
        if rows and abs(middle - (rows[-1][0].top + rows[-1][0].bottom) / 2) < 4.5:
            rows[-1].append(run)
        else:
            rows.append([run])
    return [sorted(row, key=lambda run: run.x0) for row in rows]


def _table_rows(rows: Sequence[list[Run]], start: int) -> tuple[int, list[tuple[float, float]]]:
    """One past the last row of a table that begins at `start`, and its columns; no columns where none begins."""
    best: tuple[int, list[tuple[float, float]]] = (start, [])
    covered: list[tuple[float, float]] = []
    if len(rows[start]) < 2:
        return best
    for end in range(start, len(rows)):
        row = rows[end]
        far = end > start and min(r.top for r in row) - max(r.bottom for r in rows[end - 1]) > 2.5 * UNIT
        if far or any(run.size > 16 for run in row):
            break
        for run in row:
            covered = _joined(covered, (run.x0 - 1.5, run.x1 + 1.5))
        if len(covered) < max(2, round(0.7 * max(len(row) for row in rows[start:end + 1]))):
            break  # a line across, or columns that do not hold
        inside = rows[start:end + 1]
        if len(row) >= 2 and len(inside) >= 3 and _is_table(inside, covered):
            best = (end + 1, covered)
    return best


def _is_table(rows: Sequence[list[Run]], columns: Sequence[tuple[float, float]]) -> bool:
    cells: dict[int, list[int]] = {}
    for row in rows:
        for run in row:
            cells.setdefault(_column(columns, run), []).append(len(run.text))
    means = sorted(sum(lengths) / len(lengths) for lengths in cells.values())
    filled = sum(len({_column(columns, run) for run in row}) for row in rows)
    beside = sum(len(row) >= 2 for row in rows)
    # Columns of running text are long; of a table at most one column is, and most of its cells are filled.
    return means[-2] < 18 and beside >= 0.6 * len(rows) and filled >= 0.55 * len(rows) * len(columns)


def _column(columns: Sequence[tuple[float, float]], run: Run) -> int:
    middle = (run.x0 + run.x1) / 2
    return min(range(len(columns)), key=lambda at: abs(middle - sum(columns[at]) / 2)
               if not columns[at][0] <= middle <= columns[at][1] else -1)


# --------------------------------------------------------------------------------------------------------- text


def render(piece: Piece, texts: Sequence[str], words: Counter[str]) -> str:
    """A piece's text (Markdown for lists and tables) from its lines' texts; empty lines are left out."""
    if piece.kind == "table":
        return table([[_cell(cell, texts) for cell in row] for row in piece.parts])
    if piece.kind == "list":
        made = []
        for item in piece.parts:
            text = _flow(item, texts, words)
            mark = _NUMBER.match(text)
            if text:
                made.append(list_item(text[mark.end():] if mark else _BULLET.sub("", text), 0,
                                      f"{mark.group(1)}." if mark else "-"))
        return "\n".join(made)
    if piece.kind == "markdown":
        return "\n".join(line for row in piece.parts if (line := _beside(row, texts)))
    text = _flow(piece.parts, texts, words)
    return re.sub(r"^#{1,6}\s+", "", text) if piece.kind == "heading" else text


def word_counts(texts: Sequence[str]) -> Counter[str]:
    """How often the page writes each word: decides whether a word cut at a line end had a hyphen."""
    return Counter(word.lower() for text in texts for word in re.findall(r"[\w-]+", text))


def _cell(rows: Parts, texts: Sequence[str]) -> str:
    return "\n".join(line for row in rows if (line := _beside(row, texts)))


def _beside(row: Sequence[int], texts: Sequence[str]) -> str:
    return " ".join(texts[at] for at in row if texts[at])


def _flow(rows: Parts, texts: Sequence[str], words: Counter[str]) -> str:
    flows = [""]
    for row in rows:
        line = _beside(row, texts)
        if not row and flows[-1]:
            flows.append("")
        elif line:
            flows[-1] = _glue(flows[-1], line, words) if flows[-1] else line
    return "\n".join(text for flow in flows if (text := clean(flow)))


def union(boxes: Sequence[Box]) -> Box:
    return (round(min(b[0] for b in boxes), 1), round(min(b[1] for b in boxes), 1),
            round(max(b[2] for b in boxes), 1), round(max(b[3] for b in boxes), 1))


def _unplaced(lines: Sequence[TextLine]) -> list[Piece]:
    """Paragraphs, headings, lists and tables of an engine that answers in Markdown without places."""
    groups: list[list[int]] = [[]]
    for at, line in enumerate(lines):
        if not line.text:
            groups.append([])
        else:
            groups[-1].append(at)
    found = []
    for group in groups:
        rest: list[int] = []
        for at in group:
            head = re.match(r"(#{1,6})\s+\S", lines[at].text)
            if head:
                found += [Piece(_unplaced_kind(rest, lines), 0, [[n] for n in rest])] if rest else []
                found.append(Piece("heading", len(head.group(1)), [[at]]))
                rest = []
            else:
                rest.append(at)
        if rest:
            kind = _unplaced_kind(rest, lines)
            found.append(Piece(kind, 0, [[[n]] for n in rest] if kind == "list" else [[n] for n in rest]))
    return found


def _unplaced_kind(group: Sequence[int], lines: Sequence[TextLine]) -> str:
    texts = [lines[at].text for at in group]
    if len(texts) > 1 and all(text.startswith("|") for text in texts):
        return "markdown"
    return "list" if len(texts) > 1 and all(_BULLET.match(t) or _NUMBER.match(t) for t in texts) else "paragraph"

