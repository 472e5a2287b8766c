"""The report of a search: one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from luthier.evaluate.plots import ticks_for
from luthier.project.yaml_file import flow
from luthier.tune.space import Axis, Space

WIDE, HIGH = 720, 250
SMALL_WIDE, SMALL_HIGH = 330, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30


def render(result: Mapping[str, Any], space: Space) -> str:
    """The page; `result` is the content of result.json."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("luthier.project", "."), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"flow": flow, "short": short}
    shares = sorted(result["importance"].items(), key=lambda item: -item[1])
    paths = [axis.path for axis in space.axes]
    return environment.get_template("tune.html.j2").render(
        result=result, best=result["best"], curve=_curve(result), shares=shares, paths=paths,
        scatters=[(axis.path, _scatter(axis, result)) for axis in space.axes],
        rows=sorted(result["trials"], key=lambda row: _badness(result, row)), random=result.get("random"))


def short(value: Any) -> str:
    """A value of a setting or a figure in a few letters."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else flow(value)


def _badness(result: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, float]:
    order = {"done": 0, "pruned": 1, "cut": 2, "running": 2, "failed": 3}[row["state"]]
    value = row["value"] if row["value"] is not None else 0.0
    return order, value if result["better"] == "lower" else -value


def _window(values: Sequence[float], better: str) -> tuple[float, float]:
    """The part of the scale that is worth seeing: from the best to where the worst tenth begins."""
    ranked = sorted(values, reverse=better == "higher")
    far = ranked[max(1, math.ceil(0.9 * len(ranked))) - 1]
    return min(ranked[0], far), max(ranked[0], far)


def _frame(width: int, height: int, low: float, high: float) -> tuple[str, Callable[[float], float]]:
    """Grid with figures on the left, and the vertical place of a value (held within the frame)."""
    ticks = ticks_for(low, high)
    bottom, top = ticks[0], ticks[-1]

    def y(value: float) -> float:
        inside = min(max(value, bottom), top)
        return height - BOTTOM - (height - TOP - BOTTOM) * (inside - bottom) / ((top - bottom) or 1)

    lines = "".join(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
                    f'<text class="left" x="{LEFT - 8}" y="{y(t) + 4:.1f}">{t:g}</text>' for t in ticks)
    return lines, y


def _curve(result: Mapping[str, Any]) -> Markup:
    """Best value so far over the trials, beside random search where it was run."""
    rows = {"tuned": result["best_so_far"]}
    if "random" in result:
        rows["other"] = result["random"]["best_so_far"]
    seen = [value for row in rows.values() for value in row if value is not None]
    # Early, bad values would flatten everything that follows
    grid, y = _frame(WIDE, HIGH, *_window(seen, result["better"]))
    count = max(len(row) for row in rows.values())

    def x(at: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * at / max(count - 1, 1)

    body = ""
    for tone, row in reversed(rows.items()):
        points: list[str] = []
        last: float | None = None
        for at, value in enumerate(row):
            if value is None:
                continue
            if last is not None:
                points.append(f"{x(at):.1f},{y(last):.1f}")
            points.append(f"{x(at):.1f},{y(value):.1f}")
            last = value
        body += f'<polyline class="line {tone}" points="{" ".join(points)}"/>'
    for row in result["trials"]:
        if row["state"] == "done":
            body += f'<circle class="point" cx="{x(row["trial"]):.1f}" cy="{y(row["value"]):.1f}" r="3"/>'
    marks = sorted({0, count // 2, count - 1})
    labels = "".join(f'<text x="{x(at):.1f}" y="{HIGH - 8}">{at + 1}</text>' for at in marks)
    return Markup(f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="best value so far">'
                  f"{grid}{body}{labels}</svg>")


def _scatter(axis: Axis, result: Mapping[str, Any]) -> Markup:
    """Value over one field."""
    rows = [row for row in result["trials"] if row["value"] is not None and axis.path in row["point"]]
    values = [row["value"] for row in rows if row["state"] == "done"]
    if not values:
        return Markup("")
    grid, y = _frame(SMALL_WIDE, SMALL_HIGH, *_window(values, result["better"]))
    dimension = axis.dimension
    inner = SMALL_WIDE - LEFT - RIGHT - 24
    if dimension.choice is not None:
        count = len(dimension.choice)
        marks = [(at / max(count - 1, 1), short(value)) for at, value in enumerate(dimension.choice)]

        def place(value: Any) -> float:
            return dimension.index(value) / max(count - 1, 1)
    else:
        low, high = dimension.log or dimension.range or dimension.int or (0, 1)
        scale = math.log if dimension.log is not None else float

        def place(value: Any) -> float:
            return (scale(value) - scale(low)) / (scale(high) - scale(low))

        marks = [(0.0, short(low)), (1.0, short(high))]

    def x(share: float) -> float:
        return LEFT + 12 + inner * share

    best = result["best"]["trial"]
    dots = ""
    for row in sorted(rows, key=lambda row: row["trial"] == best):
        tone = "best" if row["trial"] == best else row["state"]
        dots += (f'<circle class="dot {tone}" cx="{x(place(row["point"][axis.path])):.1f}" cy="{y(row["value"]):.1f}" '
                 f'r="{6 if row["trial"] == best else 4}"><title>trial {row["trial"]}: {row["value"]:.4g}, '
                 f'{escape(short(row["point"][axis.path]))}</title></circle>')
    labels = "".join(f'<text x="{x(share):.1f}" y="{SMALL_HIGH - 8}">{escape(text[:18])}</text>'
                     for share, text in marks)
    return Markup(f'<svg viewBox="0 0 {SMALL_WIDE} {SMALL_HIGH}" role="img" aria-label="{escape(axis.path)}">'
                  f"{grid}{dots}{labels}</svg>")
