"""Small charts of a classifier's report as inline SVG: lines, reliability bars, a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from luthier.evaluate.plots import ticks_for

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    points: Sequence[tuple[float, float]]
    tone: str
    """CSS class of its colour."""
    dashed: bool = False
    step: bool = False


class Frame:
    """The axes of a chart: data to pixels, grid and captions."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], across: str, up: str, *, percent: bool = True):
        self.x, self.y = x, y
        show = (lambda v: f"{100 * v:.0f} %") if percent else (lambda v: f"{v:g}")
        bottom = HEIGHT - BOTTOM
        parts = []
        for tick in ticks_for(*x, floor=x[0] - 1e-9, ceiling=x[1] + 1e-9):
            at = self.at(tick, y[0])[0]
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>'
                         f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{show(tick)}</text>')
        for tick in ticks_for(*y, floor=y[0] - 1e-9, ceiling=y[1] + 1e-9):
            at = self.at(x[0], tick)[1]
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                         f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{show(tick)}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="caption" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">'
                     f'{escape(across)}</text>')
        parts.append(f'<text class="caption" transform="translate(13 {(TOP + bottom) / 2}) rotate(-90)" '
                     f'text-anchor="middle">{escape(up)}</text>')
        self.parts = parts

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, line: Line) -> None:
        placed = [self.at(*point) for point in line.points]
        if line.step:
            placed = [corner for one, after in zip(placed, [*placed[1:], placed[-1]])
                      for corner in (one, (after[0], one[1]))]
        shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        self.parts.append(f'<polyline class="curve {line.tone}" points="{shape}"{dash}/>')

    def dot(self, x: float, y: float, tone: str, radius: float = 4) -> None:
        across, up = self.at(x, y)
        self.parts.append(f'<circle class="point {tone}" cx="{across:.1f}" cy="{up:.1f}" r="{radius:.1f}"/>')

    def bar(self, x: tuple[float, float], y: tuple[float, float], tone: str) -> None:
        (left, one), (right, other) = self.at(x[0], y[0]), self.at(x[1], y[1])
        self.parts.append(f'<rect class="bar {tone}" x="{left + 0.5:.1f}" y="{min(one, other):.1f}" '
                          f'width="{max(right - left - 1, 0.5):.1f}" height="{max(abs(one - other), 0.8):.1f}"/>')

    def svg(self, title: str) -> Markup:
        return Markup(f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
                      f'aria-label="{escape(title)}">{"".join(self.parts)}</svg>')


def curves(lines: Sequence[Line], across: str, up: str, title: str, *, x: tuple[float, float] = (0, 1),
           y: tuple[float, float] = (0, 1), dots: Sequence[tuple[float, float, str]] = ()) -> Markup:
    """Lines over one frame."""
    frame = Frame(x, y, across, up)
    for line in lines:
        frame.line(line)
    for dot in dots:
        frame.dot(*dot)
    return frame.svg(title)


def reliability(bins: Sequence[dict], title: str, tone: str) -> Markup:
    """Accuracy by confidence, the diagonal being perfect; the bars at the foot tell how many rows a bin holds."""
    frame = Frame((0, 1), (0, 1), "stated confidence", "share that is right")
    most = max((one["n"] for one in bins), default=1)
    for one in bins:
        frame.bar((one["low"], one["high"]), (0, 0.16 * one["n"] / most), "same")
    frame.line(Line(points=[(0, 0), (1, 1)], tone="same", dashed=True))
    told = [one for one in bins if one["n"] >= 5] or list(bins)
    frame.line(Line(points=[(one["confidence"], one["accuracy"]) for one in told], tone=tone))
    for one in told:
        frame.dot(one["confidence"], one["accuracy"], tone, 3 + 4 * (one["n"] / most) ** 0.5)
    return frame.svg(title)


def heat(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """The confusion matrix as a table: a row is a right class, a column what was said; shade by share of the row."""
    head = "".join(f'<th class="turn"><span>{escape(label)}</span></th>' for label in labels)
    body = []
    for i, row in enumerate(matrix):
        total = sum(row) or 1
        cells = "".join(
            f'<td class="{"hit" if i == j else "miss" if n else "none"}" style="--share:{n / total:.3f}" '
            f'title="{escape(labels[i])} → {escape(labels[j])}: {n} of {total}">{n or ""}</td>'
            for j, n in enumerate(row))
        body.append(f"<tr><th>{escape(labels[i])}</th>{cells}</tr>")
    return Markup(f'<table class="heat"><tr><th class="corner">right ↓ · said →</th>{head}</tr>{"".join(body)}</table>')
