"""From positioned runs of text to lines in reading order: rows, columns, ruled tables. Units are PDF points.

Reading order is a recursive cut: a gutter that stays free over several rows, with running text on both sides, parts
columns; everything else is read row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Box = tuple[float, float, float, float]
MARKER = re.compile(r"^(?:[•‣◦▪●■□○–—*·❖➢✓-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)])$")


@dataclass
class Run:
    """A piece of text in one font on one line."""

    text: str
    x0: float
    top: float
    x1: float
    bottom: float
    size: float
    bold: bool
    mono: bool
    words: tuple[tuple[str, float, float], ...] = ()
    """Each word with its x0 and x1, where they are known."""


@dataclass
class Line:
    """Runs that stand beside each other; `region` is the column (x0, x1) it belongs to."""

    runs: list[Run]
    region: tuple[float, float] = (0.0, 0.0)
    text: str = ""
    marker: bool = False
    """The first run is a bullet or a number that stands apart."""
    x0: float = 0.0
    top: float = 0.0
    x1: float = 0.0
    bottom: float = 0.0
    size: float = 0.0
    bold: bool = False
    mono: bool = False
    text_x0: float = 0.0
    """Where the text after the marker begins."""
    rows: list[list[str]] | None = field(default=None, repr=False)
    """Cells, when this stands for a whole table."""

    def settle(self) -> Line:
        """Fill in what follows from the runs."""
        self.runs.sort(key=lambda run: run.x0)
        self.x0, self.x1 = self.runs[0].x0, max(run.x1 for run in self.runs)
        self.top, self.bottom = min(run.top for run in self.runs), max(run.bottom for run in self.runs)
        chars = [len(run.text.strip()) for run in self.runs]
        main = max(range(len(self.runs)), key=lambda i: chars[i])
        self.size = self.runs[main].size
        wordy = [run for run in self.runs if not MARKER.match(run.text.strip())] or self.runs
        self.bold = all(run.bold for run in wordy)
        self.mono = all(run.mono for run in wordy)
        self.text = _beside(self.runs)
        self.marker = len(self.runs) > 1 and bool(MARKER.match(self.runs[0].text.strip()))
        self.text_x0 = self.runs[1].x0 if self.marker else self.x0
        return self

    @property
    def box(self) -> Box:
        return (self.x0, self.top, self.x1, self.bottom)


def _beside(runs: Sequence[Run]) -> str:
    text = ""
    for before, run in zip([None, *runs], runs):
        apart = before is not None and run.x0 - before.x1 > 0.12 * max(run.size, 1)
        text += (" " if apart and not text.endswith(" ") else "") + run.text
    return " ".join(text.split())


def lines_of(runs: Iterable[Run], tables: Sequence[Line]) -> list[Line]:
    """Lines and tables of a page in reading order."""
    pieces = [*_segments(runs), *tables]
    if not pieces:
        return []
    return _ordered(_bands(pieces))


def _segments(runs: Iterable[Run]) -> list[Line]:
    """Runs that follow each other on a line closer than a column gap; a bullet joins the text it marks."""
    rows: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (run.top + run.bottom) / 2):
        for row in reversed(rows[-6:]):
            if any(_beside_each_other(run, other) for other in row):
                row.append(run)
                break
        else:
            rows.append([run])
    found = []
    for row in rows:
        row.sort(key=lambda run: run.x0)
        current = [row[0]]
        for run in row[1:]:
            last = current[-1]
            marker = len(current) == 1 and MARKER.match(last.text.strip())
            limit = 40.0 if marker else 1.3 * max(run.size, last.size, 6)
            if run.x0 - max(r.x1 for r in current) <= limit:
                current.append(run)
            else:
                found.append(Line(current).settle())
                current = [run]
        found.append(Line(current).settle())
    return found


def _beside_each_other(a: Run, b: Run) -> bool:
    """On one line: at the same height, or touching, as a raised number does."""
    apart = abs((a.top + a.bottom) - (b.top + b.bottom)) / 2
    if apart < 0.4 * max(min(a.size, b.size), 4):
        return True
    gap = max(a.x0, b.x0) - min(a.x1, b.x1)
    return apart < 0.5 * max(a.size, b.size) and -1 < gap < 0.4 * max(a.size, b.size)


def _bands(pieces: list[Line]) -> list[list[Line]]:
    """Groups of pieces whose heights overlap, from top to bottom."""
    bands: list[list[Line]] = []
    bottom = float("-inf")
    for piece in sorted(pieces, key=lambda piece: (piece.top, piece.x0)):
        middle = (piece.top + min(piece.bottom, piece.top + 2 * max(piece.size, 8))) / 2
        if bands and middle < bottom:
            bands[-1].append(piece)
            bottom = max(bottom, piece.bottom) if piece.rows is not None else bottom
        else:
            bands.append([piece])
            bottom = piece.bottom
    return bands


def _ordered(bands: list[list[Line]]) -> list[Line]:
    found: list[Line] = []
    start = 0
    single: list[list[Line]] = []
    while start < len(bands):
        end, gutter = _column_run(bands, start)
        if gutter is None:
            single.append(bands[start])
            start += 1
            continue
        found += _rows(single)
        single = []
        group = [piece for band in bands[start:end] for piece in band]
        middle = (gutter[0] + gutter[1]) / 2
        found += _ordered(_bands([piece for piece in group if piece.x1 <= middle + 1]))
        found += _ordered(_bands([piece for piece in group if piece.x1 > middle + 1]))
        start = end
    return found + _rows(single)


def _rows(bands: list[list[Line]]) -> list[Line]:
    """Read row by row; pieces of one row become one line. All lines share one region."""
    if not bands:
        return []
    region = (min(p.x0 for band in bands for p in band), max(p.x1 for band in bands for p in band))
    found = []
    for band in bands:
        texts = [piece for piece in band if piece.rows is None]
        if texts:
            found.append(texts[0] if len(texts) == 1 else Line([run for piece in texts for run in piece.runs]).settle())
        found += [piece for piece in band if piece.rows is not None]
    for line in found:
        line.region = region
    return found


def _column_run(bands: list[list[Line]], start: int) -> tuple[int, tuple[float, float] | None]:
    """The longest run of bands from `start` that a gutter parts into two columns of running text."""
    best: tuple[int, tuple[float, float] | None] = (start, None)
    covered: list[tuple[float, float]] = []
    for end in range(start, len(bands)):
        for piece in bands[end]:
            covered = _joined(covered, (piece.x0, piece.x1))
        gaps = [(a[1], b[0]) for a, b in pairwise(covered) if b[0] - a[1] >= 9]
        if not gaps and len(covered) == 1 and end - start > 3 and any(len(band) > 1 for band in bands[start:end + 1]):
            break  # the gutter is closed and stays so
        for gap in sorted(gaps, key=lambda gap: gap[0] - gap[1]):
            if _are_columns(bands[start:end + 1], gap):
                best = (end + 1, gap)
                break
    return best


def _are_columns(bands: list[list[Line]], gap: tuple[float, float]) -> bool:
    middle = (gap[0] + gap[1]) / 2
    left = [piece for band in bands for piece in band if piece.x1 <= middle]
    right = [piece for band in bands for piece in band if piece.x1 > middle]
    beside = sum(any(piece.x1 <= middle for piece in band) and any(piece.x1 > middle for piece in band)
                 for band in bands)
    if len(left) < 2 or len(right) < 2 or beside < 3:
        return False

    def wordy(pieces: list[Line]) -> float:
        texts = [len(piece.text) for piece in pieces if piece.rows is None]
        return sum(texts) / len(texts) if texts else 40.0

    # Short pieces beside each other are a table or a form: those are read row by row.
    return wordy(left) >= 18 and wordy(right) >= 18


def _joined(covered: list[tuple[float, float]], new: tuple[float, float]) -> list[tuple[float, float]]:
    low, high = new
    kept = []
    for a, b in covered:
        if b < low or a > high:
            kept.append((a, b))
        else:
            low, high = min(a, low), max(b, high)
    return sorted([*kept, (low, high)])


# ------------------------------------------------------------------------------------------------- ruled tables


def ruled_tables(rules: Iterable[Box], runs: Sequence[Run]) -> list[Line]:
    """Tables drawn with lines: two filled columns at least, in a connected grid of rules.

    `rules` are thin boxes (x0, top, x1, bottom), horizontal or vertical.
    """
    found = []
    for grid in _grids(list(rules)):
        xs = _levels([x for x0, top, x1, bottom in grid for x in (x0, x1) if bottom - top > x1 - x0])
        ys = _levels([y for x0, top, x1, bottom in grid for y in (top, bottom) if bottom - top <= x1 - x0])
        if len(xs) < 3 or len(ys) < 2:
            continue
        rows = [[[] for _ in xs[1:]] for _ in ys[1:]]
        inside = [run for run in runs if xs[0] - 2 <= (run.x0 + run.x1) / 2 <= xs[-1] + 2
                  and ys[0] - 2 <= (run.top + run.bottom) / 2 <= ys[-1] + 2]
        for run in inside:
            row = _slot(ys, (run.top + run.bottom) / 2)
            for piece in _split(run, xs):
                rows[row][_slot(xs, (piece.x0 + piece.x1) / 2)].append(piece)
        texts = [[_cell(cell) for cell in row] for row in rows]
        filled_columns = sum(any(row[i] for row in texts) for i in range(len(xs) - 1))
        if filled_columns >= 2:
            found.append(Line(inside, x0=xs[0], top=ys[0], x1=xs[-1], bottom=ys[-1], rows=texts,
                              size=max((run.size for run in inside), default=10.0)))
    return found


def open_table(runs: Sequence[Run], min_columns: int) -> list[list[str]]:
    """Rows of a table without rules: its columns are the gaps that no row's words cross; [] if there are too few.

    A line with nothing in the first column goes on with the row above.
    """
    words = [Run(text, x0, run.top, x1, run.bottom, run.size, run.bold, run.mono)
             for run in runs for text, x0, x1 in run.words or ((run.text, run.x0, run.x1),)]
    covered = _columns(words, 3.5)  # narrower gaps part words
    if not min_columns <= len(covered) <= min_columns + 3:
        covered = _columns(words, 2.4)
        if len(covered) != min_columns:
            return []
    xs = [low for low, _ in covered] + [covered[-1][1]]
    rows: list[list[list[Run]]] = []
    bottom = float("-inf")
    for word in sorted(words, key=lambda word: (word.top + word.bottom) / 2):
        if (word.top + word.bottom) / 2 > bottom:
            rows.append([[] for _ in covered])
            bottom = word.bottom
        rows[-1][_slot(xs, (word.x0 + word.x1) / 2)].append(word)
    texts: list[list[str]] = []
    for row in rows:
        cells = [" ".join(word.text for word in sorted(cell, key=lambda word: word.x0)) for cell in row]
        if texts and not cells[0]:
            texts[-1] = [f"{above}\n{cell}".strip("\n") for above, cell in zip(texts[-1], cells)]
        else:
            texts.append(cells)
    return texts if len(texts) >= 3 else []


def _columns(words: Sequence[Run], gap: float) -> list[tuple[float, float]]:
    covered: list[tuple[float, float]] = []
    for word in words:
        covered = _joined(covered, (word.x0 - gap / 2, word.x1 + gap / 2))
    return covered


def _cell(runs: list[Run]) -> str:
    return "\n".join(line.text for line in sorted(_segments(runs), key=lambda line: (round(line.top), line.x0)))


def _slot(edges: list[float], at: float) -> int:
    return max(0, min(sum(edge <= at for edge in edges) - 1, len(edges) - 2))


def _split(run: Run, xs: list[float]) -> list[Run]:
    """A run that crosses a column edge is parted there, between its words."""
    crossing = [x for x in xs[1:-1] if run.x0 + 2 < x < run.x1 - 2]
    if crossing and run.words:
        cells: dict[int, list[tuple[str, float, float]]] = {}
        for word in run.words:
            cells.setdefault(_slot(xs, (word[1] + word[2]) / 2), []).append(word)
        return [Run(" ".join(text for text, _, _ in words), words[0][1], run.top, words[-1][2], run.bottom, run.size,
                    run.bold, run.mono) for words in cells.values()]
    pieces = [run]
    for x in crossing:
        last = pieces[-1]
        at = (x - last.x0) / max(last.x1 - last.x0, 1) * len(last.text)
        spaces = [found.start() for found in re.finditer(r"\s", last.text)]
        near = min(spaces, key=lambda place: abs(place - at), default=None)
        if near is None or abs(near - at) > 4:
            continue
        first, second = last.text[:near], last.text[near:].strip()
        pieces[-1:] = [Run(first, last.x0, last.top, x - 1, last.bottom, last.size, last.bold, last.mono),
                       Run(second, x + 1, last.top, last.x1, last.bottom, last.size, last.bold, last.mono)]
    return pieces


def _levels(values: list[float]) -> list[float]:
    found: list[float] = []
    for value in sorted(values):
        if not found or value - found[-1] > 3:
            found.append(value)
    return found


def _grids(rules: list[Box]) -> list[list[Box]]:
    """Rules that touch each other."""
    rules = [rule for rule in rules if max(rule[2] - rule[0], rule[3] - rule[1]) > 4][:2000]
    groups: list[tuple[Box, list[Box]]] = []
    for rule in sorted(rules, key=lambda rule: rule[1]):
        box, members = rule, [rule]
        rest = []
        for other, group in groups:
            near = (other[0] - 2 <= box[2] and box[0] - 2 <= other[2]
                    and other[1] - 2 <= box[3] and box[1] - 2 <= other[3])
            if near and any(_touch(rule, member) for member in group):
                box = (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))
                members = members + group
            else:
                rest.append((other, group))
        groups = [*rest, (box, members)]
    return [members for _, members in groups if len(members) >= 5]


def _touch(a: Box, b: Box) -> bool:
    return a[0] - 2 <= b[2] and b[0] - 2 <= a[2] and a[1] - 2 <= b[3] and b[1] - 2 <= a[3]
