"""The section "What was kept" of a labelled task's report: heat maps of R, figures, changes by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

MODES = {"class_incremental": "Nobody names the task", "task_incremental": "The task is named"}
WHEN = {"class_incremental": "When nobody names the task", "task_incremental": "when the task is named"}
ABOUT = {"class_incremental": "The answer is the likeliest of all classes learned so far (class-incremental).",
         "task_incremental": "The answer is the likeliest of the task’s own classes (task-incremental)."}
FIGURES = {
    "average_accuracy": ("Average accuracy", "Mean over the tasks after the last one was learned."),
    "forgetting": ("Forgetting", "Lost of the best accuracy that a task ever had; 0 is nothing."),
    "backward_transfer": ("Backward transfer", "Change of the earlier tasks since each was learned; below 0 is loss."),
    "forward_transfer": ("Forward transfer", "Accuracy on a task just before its turn, beyond the untrained start."),
    "plasticity": ("Plasticity", "Accuracy on each task right after learning it: can it still learn?"),
}
WIDTH, HEIGHT, LEFT, NAME = 78, 34, 186, 18
"""Pixels of a cell and of the row names, and characters of a task's name."""


def view(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the template shows; None where there is nothing."""
    if not told:
        return None
    modes = told["modes"]
    same = modes["class_incremental"]["matrix"] == modes["task_incremental"]["matrix"]  # the tasks share their classes
    shown = ["class_incremental"] if same else [*MODES]
    rows = []
    for name, (label, about) in FIGURES.items():
        cells = [_ranged(modes[mode]["figures"].get(name), sign=name.endswith("transfer")) for mode in shown]
        if any(value != "–" for value, _ in cells):
            rows.append({"label": label, "about": about, "cells": cells})
    return {
        "sentence": _sentence(told, shown), "same": same, "heads": told["heads"], "order": told["order"],
        "beside": len(told["tasks"]) <= 4, "modes": [{"title": MODES[mode], "about": ABOUT[mode],
                   "plot": grid(modes[mode]["matrix"], told["tasks"], start=modes[mode]["start"], title=MODES[mode])}
                  for mode in shown],
        "figures": rows, "columns": [MODES[mode] for mode in shown],
        "tasks": [_task(told, shown, at) for at in range(len(told["tasks"]))], "orders": told["orders"],
    }


def _sentence(told: Mapping[str, Any], shown: Sequence[str]) -> str:
    parts = []
    for mode in shown:
        figures = told["modes"][mode]["figures"]
        average, lost = figures.get("average_accuracy"), figures.get("forgetting")
        if average is None:
            continue
        text = f"{WHEN[mode]}, average accuracy is {average['value']:.3f}"
        if lost is not None:
            sure = lost["low"] is not None and lost["low"] > 0
            text += f" and {lost['value']:.3f} was forgotten" if sure else " and nothing measurable was forgotten"
        parts.append(text)
    return f"{len(told['tasks'])} tasks were learned one after another. " + "; ".join(parts) + "."


def _task(told: Mapping[str, Any], shown: Sequence[str], at: int) -> dict[str, Any]:
    cells = []
    for mode in shown:
        row = told["modes"][mode]["by_task"][at]
        cells.append({"learned": _three(row["learned"]), "now": _ranged(row["now"]),
                      "change": _ranged(row["change"], sign=True),
                      "tone": _tone(row["change"])})
    return {"name": told["tasks"][at], "n": told["n"][at], "labels": len(told["labels"][told["tasks"][at]]),
            "cells": cells}


def _tone(change: Mapping[str, Any] | None) -> str:
    if change is None or change["low"] is None:
        return ""
    return "bad" if change["high"] < 0 else "good" if change["low"] > 0 else ""


def _three(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.3f}"
    return (text if any(digit in text for digit in "123456789") else text.lstrip("+-")).replace("-", "−")


def _ranged(one: Mapping[str, Any] | None, *, sign: bool = False) -> tuple[str, str]:
    if one is None or one["value"] is None:
        return "–", ""
    ends = [_three(one[end], sign=sign) for end in ("low", "high")]
    return _three(one["value"], sign=sign), "" if one["low"] is None else " to ".join(ends)


def grid(matrix: Sequence[Sequence[float | None]], tasks: Sequence[str], *, start: Sequence[float | None] | None = None,
         title: str) -> Markup:
    """R as a heat map: a row is a stage, a column a task; framed cells were learned in that stage, faint ones come
    later."""
    rows: list[tuple[str, Sequence[float | None], int]] = [
        (f"after {at + 1}. {_short(name)}", matrix[at], at) for at, name in enumerate(tasks)]
    if start is not None:
        rows.insert(0, ("before the first", start, -1))
    top = 46
    width, height = LEFT + WIDTH * len(tasks), top + HEIGHT * len(rows) + 4
    parts = []
    for column, name in enumerate(tasks):
        parts.append(f'<text class="caption" x="{LEFT + WIDTH * (column + 0.5):.0f}" y="{top - 22}" '
                     f'text-anchor="middle">{column + 1}</text>'
                     f'<text x="{LEFT + WIDTH * (column + 0.5):.0f}" y="{top - 8}" text-anchor="middle">'
                     f'<title>{escape(name)}</title>{escape(_short(name, 10))}</text>')
    for line, (name, values, stage) in enumerate(rows):
        y = top + HEIGHT * line
        parts.append(f'<text x="{LEFT - 12}" y="{y + HEIGHT / 2 + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        for column, value in enumerate(values):
            kind = "new" if column == stage else "later" if column > stage else "kept"
            share = 0.0 if value is None else value
            x = LEFT + WIDTH * column
            text = "–" if value is None else f"{value:.2f}"
            parts.append(
                f'<g class="{kind}"><title>{escape(name)}: {escape(tasks[column])} {text}</title>'
                f'<rect x="{x + 1.5}" y="{y + 1.5}" width="{WIDTH - 3}" height="{HEIGHT - 3}" rx="4" '
                f'style="--share:{share:.3f}"/><text class="value" x="{x + WIDTH / 2:.0f}" '
                f'y="{y + HEIGHT / 2 + 4.5:.1f}" text-anchor="middle">{text}</text></g>')
    return Markup(f'<svg class="grid-map" viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
                  f'aria-label="{escape(title)}">{"".join(parts)}</svg>')


def _short(name: str, most: int = NAME) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
