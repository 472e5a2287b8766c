"""`pareto.html`: the front of new skill against old as one self-contained page (inline SVG, no script, no network)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from luthier.blend.table import text_of
from luthier.evaluate.plots import ticks_for

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 640, 400, 76, 52, 24

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #66707e; --line: #d5dae1; --page: #ffffff;
  --front: #1f6feb; --knee: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #9aa4b2; --line: #38404b; --page: #14181e;
  --front: #6ea8fe; --knee: #fb923c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 44rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif;
  fill: var(--soft); } .grid { stroke: var(--line); } .chord { stroke: var(--soft); stroke-dasharray: 5 4; }
.front { fill: none; stroke: var(--front); stroke-width: 2; } .dot { fill: var(--front); }
.worse { fill: var(--page); stroke: var(--soft); stroke-width: 1.5; } .knee { fill: var(--knee); }
svg text.named { fill: var(--ink); } svg text.best { fill: var(--knee); font-weight: 600; }
pre { white-space: pre-wrap; background: color-mix(in srgb, var(--line) 35%, transparent); padding: 1rem;
  border-radius: 6px; font-size: 13px; }
"""


def render(table: Mapping[str, Any]) -> str:
    """The page of a table."""
    what = "Blends: new skill against old" if table["old"] else "Blends: new skill"
    chosen = f"Proposed: a = {table['knee']:g}. {table['why'].capitalize()}."
    plot = _plot(table) if table["old"] else ""
    note = ("<p>Each dot is the model at a share <i>a</i> of the way from where training began (0) to the trained end "
            "(1). Up and to the right is better. Hollow dots are dominated: another blend is at least as good on both "
            "axes. The dashed line is the straight trade between the two ends; the knee lies farthest beyond it.</p>"
            if table["old"] else "")
    return (f"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{what}</title>"
            f"<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>"
            f"<h1>{what}</h1><p>{escape(chosen)}</p>{plot}{note}<pre>{escape(text_of(table))}</pre></body></html>\n")


class _Scale:
    """Values of one axis to pixels; the better end is right (new) or up (old)."""

    def __init__(self, values: Sequence[float], better: str, start: float, end: float):
        self.ticks = ticks_for(min(values), max(values), about=5)
        low, high = min(self.ticks[0], *values), max(self.ticks[-1], *values)
        worst, best = (low, high) if better == "higher" else (high, low)
        self.worst, self.span, self.start, self.end = worst, (best - worst) or 1.0, start, end

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.worst) / self.span * (self.end - self.start), 1)


def _plot(table: Mapping[str, Any]) -> str:
    rows, new, old = table["points"], table["new"], table["old"]
    x = _Scale([row["new"] for row in rows], new["better"], LEFT, WIDTH - EDGE)
    y = _Scale([row["old"] for row in rows], old["better"], HEIGHT - BOTTOM, EDGE)
    parts = [f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{EDGE}" y2="{HEIGHT - BOTTOM}"/>'
             f'<text x="{x(t)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{t:g}</text>' for t in x.ticks]
    parts += [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y(t)}" y2="{y(t)}"/>'
              f'<text x="{LEFT - 8}" y="{y(t) + 4}" text-anchor="end">{t:g}</text>' for t in y.ticks]
    first, last = rows[0], rows[-1]
    parts.append(f'<line class="chord" x1="{x(first["new"])}" y1="{y(first["old"])}" x2="{x(last["new"])}" '
                 f'y2="{y(last["old"])}"/>')
    front = sorted((row for row in rows if not row["dominated"]), key=lambda row: x(row["new"]))
    parts.append('<polyline class="front" points="'
                 + " ".join(f'{x(row["new"])},{y(row["old"])}' for row in front) + '"/>')
    for row in rows:
        chosen = row["share"] == table["knee"]
        tone = "knee" if chosen else "worse" if row["dominated"] else "dot"
        parts.append(f'<circle class="{tone}" cx="{x(row["new"])}" cy="{y(row["old"])}" r="{7 if chosen else 5}">'
                     f'<title>a = {row["share"]:g}: new {row["new"]:.4f}, old {row["old"]:.4f}</title></circle>')
    parts += _names(rows, table["knee"], x, y)
    sides = (f'<text x="{(LEFT + WIDTH - EDGE) / 2}" y="{HEIGHT - 10}" text-anchor="middle">new skill: '
             f'{escape(new["metric"])} ({new["better"]} is better)</text>'
             f'<text transform="translate(16 {(EDGE + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">old '
             f'skill: {escape(old["metric"])} ({old["better"]} is better)</text>')
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Pareto front of new skill against old">'
            f'{"".join(parts)}{sides}</svg>')


def _names(rows: Sequence[Mapping[str, Any]], knee: float, x: _Scale, y: _Scale) -> list[str]:
    """Names of the ends and the knee, and of others where there is room."""
    placed: list[tuple[float, float]] = []
    parts = []
    order = sorted(rows, key=lambda row: (row["share"] != knee, row["share"] not in (0, 1), row["share"]))
    for row in order:
        at = (x(row["new"]), y(row["old"]))
        if any(abs(at[0] - there[0]) < 46 and abs(at[1] - there[1]) < 18 for there in placed):
            continue
        placed.append(at)
        left = at[0] > WIDTH - EDGE - 60
        side, anchor = (-10, "end") if left else (10, "start")
        named = "best" if row["share"] == knee else "named"
        parts.append(f'<text class="{named}" x="{at[0] + side}" y="{at[1] - 8}" text-anchor="{anchor}">'
                     f'{row["share"]:g}</text>')
    return parts
