"""`report.html` of a labelled task: one self-contained page that a stranger understands."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from luthier.evaluate.labels import figures, sequence_view
from luthier.evaluate.labels.verdict import ABOUT, LABELS, NAMES, ORDER
from luthier.evaluate.plots import Forest, Mark, forest

TASKS = {"classify": "text classification", "image": "image classification", "tag": "tagging", "embed": "search"}
RULES = {"max_probability": "Highest probability", "margin": "Lead over the second class",
         "energy": "Energy of the logits", "centre": "Closeness to a class centre"}
THUMBNAIL = 112
TEXT = 420
"""Characters of a text shown."""
CLASSES = 15
"""Classes shown before the rest is folded."""


def render(report: Mapping[str, Any], root: Path) -> str:
    """The page; image files are looked for under the project folder `root`."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("luthier.evaluate", "."), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "cap": lambda text: text[:1].upper() + text[1:]}
    told = report["metrics"]
    first = sorted(told, key=lambda kind: (kind != report["metric"], told[kind]["place"]))
    report = {**report, "metrics": {kind: told[kind] for kind in first}}
    present = [system for system in ORDER if system in report["systems"]]
    return environment.get_template("labels/report.html.j2").render(
        report=report, systems=present, labels=LABELS, about=ABOUT, kind=TASKS[report["task"]["type"]],
        headline=_headline(report), metric=report["metrics"][report["metric"]], values=_values(report, present),
        gaps=_gaps(report, present), table=_table(report, present), classes=_classes(report),
        confusion=_confusion(report), calibration=_calibration(report), abstention=_abstention(report),
        scope=_scope(report), mistakes=[_mistake(report, row, present, root) for row in report["mistakes"]],
        slices=_slices(report, present), gap=_gap(report), costs=_costs(report, present), rules=RULES,
        chance=_chance(report, present), thresholds=report.get("thresholds"),
        focus=LABELS[report["focus"]], rows_word=_rows_word(report),
        sequence=sequence_view.view(report.get("sequence")),
    )


def figure(unit: str, value: float | None, *, sign: bool = False) -> str:
    """Three digits for shares and losses; – for what is not known."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.3f}"
    return (text if any(digit in text for digit in "123456789") else text.lstrip("+-")).replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def _range(one: Mapping[str, Any], *, sign: bool = False) -> str:
    if one["low"] is None:
        return ""
    return f"{figure('', one['low'], sign=sign)} to {figure('', one['high'], sign=sign)}"


def _ranged(one: Mapping[str, Any], *, sign: bool = False) -> str:
    ends = _range(one, sign=sign)
    return figure("", one["value"], sign=sign) + (f" ({ends})" if ends else "")


def _rows_word(report: Mapping[str, Any]) -> str:
    return {"image": "images", "embed": "queries"}.get(report["task"]["type"], "texts")


def _headline(report: Mapping[str, Any]) -> dict[str, str]:
    verdict = report["verdict"]
    choice = verdict["choice"]
    if choice == "tuned":
        return {"text": "Release the tuned model", "tone": "tuned" if verdict["conclusive"] else "tuned unsure"}
    if "tuned" not in report["systems"]:
        return {"text": f"Use {NAMES[choice]}", "tone": choice}
    if not verdict["conclusive"]:
        return {"text": "The test cannot tell whether tuning helps", "tone": "unsure"}
    return {"text": f"Do not tune: {LABELS[choice]} does as well", "tone": choice}


def _values(report: Mapping[str, Any], systems: Sequence[str]) -> Forest:
    kind = report["metric"]
    marks = []
    for system in systems:
        if system == "majority" and len(systems) > 1:
            continue  # so far away that the others would stand in one heap; the page tells its figure in words
        if one := report["systems"][system]["metrics"].get(kind):
            marks.append(Mark(label=LABELS[system], note=ABOUT[system], tone=system, value=one["value"], low=one["low"],
                              high=one["high"], shown=_ranged(one), strong=system == report["verdict"]["choice"]))
    return forest(marks, ceiling=1 if report["metrics"][kind]["unit"] == "share" else None)


def _chance(report: Mapping[str, Any], systems: Sequence[str]) -> str:
    """What always answering the commonest class gives, where that system is not drawn."""
    if "majority" not in systems or len(systems) == 1:
        return ""
    return _ranged(report["systems"]["majority"]["metrics"][report["metric"]])


def _tone(better: str, one: Mapping[str, Any]) -> str:
    low, high = one["low"], one["high"]
    if low is None or low <= 0 <= high:
        return "same"
    return "good" if (low > 0) == (better == "higher") else "bad"


def _gaps(report: Mapping[str, Any], systems: Sequence[str]) -> Forest | None:
    kind = report["metric"]
    better = report["metrics"][kind]["better"]
    last = systems[-1]
    marks = []
    for row in report["differences"]:
        if row["metric"] == kind and row["system"] == last and row["against"] != "majority":
            words = {"good": "better", "bad": "worse", "same": "no measurable difference"}[_tone(better, row)]
            marks.append(Mark(label=f"{LABELS[last]} against {NAMES[row['against']]}", note=words,
                              tone=_tone(better, row), value=row["value"], low=row["low"], high=row["high"],
                              shown=_ranged(row, sign=True)))
    return forest(marks, zero=0.0) if marks else None


def _table(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for kind, told in report["metrics"].items():
        cells = {system: report["systems"][system]["metrics"].get(kind) for system in systems}
        known = [cell["value"] for cell in cells.values() if cell]
        if not known:
            continue
        top = (max if told["better"] == "higher" else min)(known)
        spread = max(known) - min(known) > 1e-9
        rows.append({"kind": kind, **told, "cells": [
            None if cell is None else {"value": figure(told["unit"], cell["value"]), "n": cell["n"],
                                       "range": _range(cell), "best": spread and cell["value"] == top}
            for cell in cells.values()]})
    return rows


def _classes(report: Mapping[str, Any]) -> dict[str, Any] | None:
    if not report.get("classes"):
        return None
    rows = []
    for one in report["classes"]:
        rows.append({"label": one["label"], "n": one["n"], "said": one["said"],
                     "cells": [(figure("", one[which]["value"]), _range(one[which]))
                               for which in ("precision", "recall", "f1")],
                     "bar": _bar(one["f1"], report["focus"]) if one["n"] else ""})
    return {"shown": rows[:CLASSES], "folded": rows[CLASSES:]}


def _bar(one: Mapping[str, Any], tone: str) -> Markup:
    """An interval on a fixed scale from 0 to 1."""
    low, high = (one["value"] if end is None else end for end in (one["low"], one["high"]))
    return Markup(f'<svg class="track {tone}" width="100%" height="16" aria-hidden="true">'
                  f'<line class="grid" x1="0" x2="100%" y1="8" y2="8"/><line class="whisker" x1="{100 * low:.1f}%" '
                  f'x2="{100 * high:.1f}%" y1="8" y2="8"/>'
                  f'<circle class="dot" cx="{100 * one["value"]:.1f}%" cy="8" r="4.5"/></svg>')


def _confusion(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("confusion")
    if not told:
        return None
    found = dict(told)
    if "matrix" in told:
        found["heat"] = figures.heat(told["matrix"], told["labels"])
    return found


def _calibration(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("calibration")
    if not told:
        return None
    plots = {name: figures.reliability(told[name]["bins"], f"Reliability {name} scaling",
                                       "same" if name == "before" else "tuned") for name in ("before", "after")}
    return {**told, "plots": plots}


def _abstention(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("abstention")
    if not told:
        return None
    points = [(one["coverage"], one["accuracy"]) for one in told["curve"]]
    low = min(accuracy for _, accuracy in points)
    floor = max(0.0, min(0.9, low - 0.05) // 0.05 * 0.05)
    return {**told, "plot": figures.curves(
        [figures.Line(points=points, tone=report["focus"])], "share of rows answered", "share of answers that is right",
        "Accuracy by coverage", y=(floor, 1.0), dots=[(*points[-1], report["focus"])])}


def _scope(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("out_of_scope")
    if not told:
        return None
    plot = figures.curves([figures.Line(points=[(0, 0), (1, 1)], tone="same", dashed=True),
                           figures.Line(points=told["roc"], tone="tuned")],
                          "rows of a class refused", "foreign rows refused", "Refusals of rows that belong to no class")
    marks = [Mark(label=RULES[row["rule"]], tone="tuned" if row["rule"] == told["best"] else "same",
                  value=row["auroc"]["value"], low=row["auroc"]["low"], high=row["auroc"]["high"],
                  shown=_ranged(row["auroc"]), strong=row["rule"] == told["best"]) for row in told["rules"]]
    return {**told, "plot": plot, "forest": forest(marks, ceiling=1)}


def _slices(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for dimension, groups in report["slices"].items():
        rows = [{"label": label, "n": next((cells[s]["n"] for s in systems if s in cells), 0),
                 "cells": [(figure("", cells[s]["value"]), _range(cells[s])) if s in cells else ("–", "")
                           for s in systems]} for label, cells in groups.items()]
        found.append({"title": f"By {dimension.removeprefix('group:')}", "rows": rows})
    return found


def _gap(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("gap")
    if not isinstance(told, Mapping) or told.get("train") is None or told.get("validation") is None:
        return None
    test = report["systems"].get("tuned", {}).get("metrics", {}).get(report["metric"])
    marks = [Mark(label=label, tone=tone, value=told[name], shown=figure("", told[name]))
             for name, label, tone in (("train", "Rows it was trained on", "same"),
                                       ("validation", "Validation rows", "features"))]
    if test:
        marks.append(Mark(label="Test rows", tone="tuned", value=test["value"], low=test["low"], high=test["high"],
                          shown=_ranged(test), strong=True))
    return {"memorises": bool(told.get("memorises")), "sentence": told.get("sentence", "").replace(
        f"{report['metric']} ", f"{report['metrics'][report['metric']]['label']} "),
            "plot": forest(marks, ceiling=1 if report["metrics"][report["metric"]]["unit"] == "share" else None)}


def _costs(report: Mapping[str, Any], systems: Sequence[str]) -> dict[str, Any]:
    rows = []
    for system in systems:
        told = report["systems"][system]
        if told.get("cpu_s") is not None:
            what = "answering the test rows" if system in ("tuned", "zero_shot", "base", "bm25") \
                else "training and answering the test rows"
            rows.append({"label": LABELS[system], "tone": system, "text": f"{told['cpu_s']:,.1f} CPU-s for {what}"
                         + (f"; penalty C = {told['C']:g}" if "C" in told else "")
                         + (f"; {told['columns']:,} columns" if "columns" in told else "")})
    return {"rows": rows, "latency": report["latency"]}


def _mistake(report: Mapping[str, Any], row: Mapping[str, Any], systems: Sequence[str], root: Path) -> dict[str, Any]:
    focus = row["systems"][report["focus"]]
    kind = report["task"]["type"]
    found: dict[str, Any] = {
        "where": row["where"] or row["example"], "text": _cut(row["text"]), "image": "", "kind": kind,
        "others": [{"label": LABELS[system], "tone": system, "right": row["systems"][system]["right"],
                    "said": ", ".join(_said(one) for one in row["systems"][system]["said"][:3]) or "none"}
                   for system in systems if system not in (report["focus"], "majority")],
        "right": ", ".join(_said(one) for one in row["right"]) or "none", "probability": focus.get("probability"),
        "said": ", ".join(_said(one) for one in focus["said"][:3]) or "none", "place": focus.get("place")}
    if kind == "tag":
        found["text"] = _marked(row["text"], row["right"], focus["said"])
        found["right"] = "; ".join(f"{row['text'][a:b]} = {label}" for a, b, label in row["right"]) or "no piece"
        found["said"] = "; ".join(f"{row['text'][a:b]} = {label}" for a, b, label in focus["said"]) or "no piece"
        found["others"] = []
    if kind == "embed":
        found["right"], found["said"] = _cut(row["right"][0]), _cut(focus["said"][0])
        found["others"] = [{"label": LABELS[system], "tone": system, "right": row["systems"][system]["right"],
                            "said": f"place {row['systems'][system]['place']}"} for system in systems
                           if system != report["focus"]]
    if row["image"]:
        found["image"] = thumbnail(root / row["image"])
    return found


def _said(one: Any) -> str:
    return one if isinstance(one, str) else str(one[-1])


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[:TEXT].rstrip() + " …"


def _marked(text: str, right: Sequence[Any], said: Sequence[Any]) -> Markup:
    """The text with pieces that were missed underlined in green, those found (start, end and tag) in green, and those
    given wrongly in red."""
    ends = sorted({0, len(text), *(at for piece in (*right, *said) for at in piece[:2])})
    true, given = {tuple(one) for one in right}, {tuple(one) for one in said}
    parts = []
    for start, end in itertools.pairwise(ends):
        kinds = [name for name, pieces in (("found", true & given), ("true", true - given), ("given", given - true))
                 if any(a <= start and end <= b for a, b, _ in pieces)]
        piece = escape(text[start:end])
        parts.append(Markup('<mark class="{}">{}</mark>').format(" ".join(kinds), piece) if kinds else piece)
    return Markup("").join(parts)


def thumbnail(path: Path) -> str:
    """A small JPEG as a data URI; empty when the file cannot be read any more."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=80)
    except (OSError, UnidentifiedImageError):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
