"""Small plots as inline SVG. Coordinates are percentages, so a plot has any width and its text one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

HEIGHT = 30


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One row of a forest plot."""

    label: str
    tone: str
    """CSS class of the colour: a system's name, or good, bad, same."""
    value: float
    low: float | None = None
    high: float | None = None
    shown: str = ""
    """The figure in words, right of the plot."""
    note: str = ""
    """Small print below the label."""
    strong: bool = False


@dataclass(frozen=True)
class Row:
    mark: Mark
    svg: Markup


@dataclass(frozen=True)
class Forest:
    """Rows of dots with intervals over one shared axis."""

    rows: tuple[Row, ...]
    axis: Markup


def forest(marks: Sequence[Mark], *, zero: float | None = None, limit: float | None = None, floor: float | None = None,
           ceiling: float | None = None, bars: bool = False, steps: int = 4,
           show: Callable[[float], str] = lambda value: f"{value:g}") -> Forest:
    """A dot and a whisker per mark; `zero` and `limit` draw vertical lines, `bars` fills from the left edge.

    The axis holds all intervals and lines; `floor` and `ceiling` cap it where a figure cannot go beyond.
    """
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    ends += [line for line in (zero, limit) if line is not None] + ([0.0] if bars else [])
    ticks = ticks_for(min(ends), max(ends), floor=floor, ceiling=ceiling, about=steps)
    left, right = min(ticks[0], min(ends)), max(ticks[-1], max(ends))
    span = (right - left) or 1.0

    def x(value: float) -> str:
        return f"{2 + 96 * (value - left) / span:.2f}%"

    grid = "".join(f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="0" y2="100%"/>' for t in ticks)
    if zero is not None:
        grid += f'<line class="zero" x1="{x(zero)}" x2="{x(zero)}" y1="0" y2="100%"/>'
    if limit is not None:
        grid += f'<line class="limit" x1="{x(limit)}" x2="{x(limit)}" y1="0" y2="100%"/>'
    rows = []
    for mark in marks:
        middle = HEIGHT // 2
        body = ""
        if bars:
            width = 96 * (mark.value - left) / span
            body += f'<rect class="fill" x="2%" y="{middle - 6}" width="{width:.2f}%" height="12" rx="2"/>'
        if mark.low is not None and mark.high is not None:
            body += f'<line class="whisker" x1="{x(mark.low)}" x2="{x(mark.high)}" y1="{middle}" y2="{middle}"/>'
            body += "".join(f'<line class="cap" x1="{x(end)}" x2="{x(end)}" y1="{middle - 5}" y2="{middle + 5}"/>'
                            for end in (mark.low, mark.high))
        if not bars:
            body += f'<circle class="dot" cx="{x(mark.value)}" cy="{middle}" r="{7 if mark.strong else 5.5}"/>'
        svg = f'<svg class="track {mark.tone}" width="100%" height="{HEIGHT}" aria-hidden="true">{grid}{body}</svg>'
        rows.append(Row(mark, Markup(svg)))  # holds only numbers and our own class names
    shown = "".join(f'<text x="{x(t)}" y="13">{show(t)}</text>' for t in ticks)
    return Forest(tuple(rows), Markup(f'<svg class="axis" width="100%" height="18" aria-hidden="true">{shown}</svg>'))


def ticks_for(low: float, high: float, *, floor: float | None = None, ceiling: float | None = None,
              about: int = 4) -> list[float]:
    """Round numbers that cover low to high, roughly `about` steps."""
    if high - low < 1e-12:
        low, high = low - max(abs(low) * 0.1, 0.05), high + max(abs(high) * 0.1, 0.05)
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    kept = [t for t in ticks if (floor is None or t >= floor) and (ceiling is None or t <= ceiling)]
    return kept or ticks
