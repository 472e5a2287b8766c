"""`report.html`: the report as one self-contained page that a stranger understands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from luthier.evaluate.outcome import LISTED
from luthier.evaluate.plots import Forest, Mark, forest
from luthier.evaluate.text import content_words
from luthier.evaluate.verdict import NAMES, ORDER, PAIRS

LABELS = {"base": "Base", "retrieval": "Base + retrieval", "tuned": "Tuned", "tuned_retrieval": "Tuned + retrieval"}
ABOUT = {
    "base": "The model as it was, asked the bare question.",
    "retrieval": "The same model, with passages found by search in front of the question.",
    "tuned": "The model after training on the documents, asked the bare question.",
    "tuned_retrieval": "The trained model, with passages found by search in front of the question.",
}
CHOICES = {"base": "Do not tune", "retrieval": "Use retrieval", "tuned": "Release the tuned model",
           "tuned_retrieval": "Combine tuning and retrieval"}
PERCENT = {"exact_match", "refused_rightly", "refused_wrongly"}
MAKERS = {"human": "your own pairs", "document": "found in a document", "rule": "made by a rule",
          "teacher": "written by a model"}


def render(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page; `rows` are those of predictions.jsonl."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("luthier.evaluate", "."), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": _figure_filter, "cap": lambda text: text[:1].upper() + text[1:]}
    present = [system for system in ORDER if system in report["systems"]]
    told = report["metrics"]  # JSON sorts its keys: the metric that decides first, then the order of the spec
    first = sorted(told, key=lambda kind: (kind != report["metric"], told[kind]["place"]))
    report = {**report, "metrics": {kind: told[kind] for kind in first}}
    return environment.get_template("report.html.j2").render(
        report=report, systems=present, labels=LABELS, about=ABOUT, names=NAMES, headline=_headline(report),
        metric=report["metrics"][report["metric"]], values=_values(report, present), gaps=_gaps(report),
        changes=_changes(report, present), table=_table(report, present), small=_small_plots(report, present),
        retention=_retention(report), retrieval=_retrieval(report), latency=_latency(report, present),
        costs=_costs(report, present), slices=_slices(report, present), examples=_examples(report, rows, present),
        judge=_judge(report),
    )


def figure(kind: str, unit: str, value: float | None, *, sign: bool = False) -> str:
    """A figure for people: shares of yes/no metrics in percent, other shares with two digits, losses with three."""
    if value is None:
        return "–"
    plus = "+" if sign else ""
    if kind in PERCENT:
        text = f"{100 * value:{plus}.0f} %"
    else:
        text = f"{value:{plus}.2f}" if unit in ("share", "ratio") else f"{value:{plus}.3f}"
    # A rounded zero has no sign, and a minus is not a hyphen.
    return (text if re.search("[1-9]", text) else text.lstrip("+-")).replace("-", "−")


def _figure_filter(value: float | None, kind: str, unit: str) -> str:
    return figure(kind, unit, value)


def _headline(report: Mapping[str, Any]) -> dict[str, str]:
    verdict = report["verdict"]
    if not verdict["conclusive"] and verdict["choice"] == "base":
        return {"text": "The test is too small to tell", "tone": "unsure"}
    tone = verdict["choice"] if verdict["conclusive"] else f"{verdict['choice']} unsure"
    return {"text": CHOICES[verdict["choice"]], "tone": tone}


def _values(report: Mapping[str, Any], systems: Sequence[str]) -> Forest:
    kind = report["metric"]
    unit = report["metrics"][kind]["unit"]
    marks = []
    for system in systems:
        one = report["systems"][system]["metrics"].get(kind)
        if one:
            marks.append(Mark(label=LABELS[system], note=ABOUT[system], tone=system, value=one["value"],
                              low=one["low"], high=one["high"], shown=_ranged(kind, unit, one),
                              strong=system == report["verdict"]["choice"]))
    return forest(marks, floor=0, ceiling=1 if unit == "share" else None)


def _range(kind: str, unit: str, one: Mapping[str, Any], *, sign: bool = False) -> str:
    if one["low"] is None:
        return ""
    return f"{figure(kind, unit, one['low'], sign=sign)} to {figure(kind, unit, one['high'], sign=sign)}"


def _ranged(kind: str, unit: str, one: Mapping[str, Any], *, sign: bool = False) -> str:
    ends = _range(kind, unit, one, sign=sign)
    return figure(kind, unit, one["value"], sign=sign) + (f" ({ends})" if ends else "")


def _tone(better: str, one: Mapping[str, Any]) -> str:
    low, high = one["low"], one["high"]
    if low is None or low <= 0 <= high:
        return "same"
    return "good" if (low > 0) == (better == "higher") else "bad"


def _gaps(report: Mapping[str, Any]) -> Forest | None:
    kind = report["metric"]
    told = report["metrics"][kind]
    found = {(row["system"], row["against"]): row for row in report["differences"] if row["metric"] == kind}
    marks = []
    for pair in PAIRS:
        if row := found.get(pair):
            text = _ranged(kind, told["unit"], row, sign=True)
            words = {"good": "better", "bad": "worse", "same": "no measurable difference"}[_tone(told["better"], row)]
            marks.append(Mark(label=f"{LABELS[pair[0]]} against {LABELS[pair[1]].lower()}", note=words,
                              tone=_tone(told["better"], row), value=row["value"], low=row["low"], high=row["high"],
                              shown=text))
    return forest(marks, zero=0.0) if marks else None


def _changes(report: Mapping[str, Any], systems: Sequence[str]) -> dict[str, Any] | None:
    """Metrics by comparison: up, down, or no measurable change. Perplexity repeats the answer loss and is left out."""
    pairs = [pair for pair in LISTED if pair[0] in systems and pair[1] in systems]
    rows = []
    for kind, told in report["metrics"].items():
        cells = []
        for pair in pairs:
            row = next((row for row in report["differences"] if row["metric"] == kind
                        and (row["system"], row["against"]) == pair), None)
            cells.append(None if row is None else {
                "tone": _tone(told["better"], row), "value": figure(kind, told["unit"], row["value"], sign=True),
                "range": _range(kind, told["unit"], row, sign=True)})
        if kind != "perplexity" and any(cells):
            rows.append({"label": told["label"], "better": told["better"], "cells": cells})
    heads = [f"{LABELS[mine]} against {LABELS[theirs].lower()}" for mine, theirs in pairs]
    return {"heads": heads, "rows": rows} if rows else None


def _table(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    """Every metric of every system; the best value is marked when its interval does not reach the others' values."""
    rows = []
    for kind, told in report["metrics"].items():
        cells = {system: report["systems"][system]["metrics"].get(kind) for system in systems}
        known = {system: cell["value"] for system, cell in cells.items() if cell}
        if not known:
            continue
        pick = max if told["better"] == "higher" else min
        top = pick(known.values())
        spread = max(known.values()) - min(known.values()) > 1e-9
        rows.append({"kind": kind, **told, "cells": [
            None if cell is None else {
                "value": figure(kind, told["unit"], cell["value"]), "n": cell["n"],
                "range": _range(kind, told["unit"], cell),
                "best": spread and cell["value"] == top}
            for cell in cells.values()]})
    return rows


def _small_plots(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    """A forest per further metric."""
    found = []
    for kind, told in report["metrics"].items():
        marks = [Mark(label=LABELS[system], tone=system, value=one["value"], low=one["low"], high=one["high"],
                      shown=figure(kind, told["unit"], one["value"]))
                 for system in systems if (one := report["systems"][system]["metrics"].get(kind))]
        if kind not in (report["metric"], "perplexity") and marks:
            percent = kind in PERCENT
            plot = forest(marks, floor=0, ceiling=1 if told["unit"] == "share" else None, steps=2,
                          show=(lambda v: f"{100 * v:.0f} %") if percent else (lambda v: f"{v:g}"))
            found.append({"kind": kind, **told, "plot": plot})
    return found


def _retention(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report["retention"]
    loss, choice = told.get("token_loss") or {}, told.get("choice") or {}
    if "relative_rise" not in loss and "difference" not in choice:
        return None
    found: dict[str, Any] = {"limit": told["limit"], "rise": None, "choice": None}
    if "relative_rise" in loss:
        rise = loss["relative_rise"]
        tone = "bad" if rise > told["limit"] else "good" if loss["low"] is not None and loss["high"] < 0 else "same"
        shown = f"{100 * rise:+.1f} %" + ("" if loss["low"] is None
                                          else f" ({100 * loss['low']:+.1f} to {100 * loss['high']:+.1f})")
        found["rise"] = forest([Mark(label="Rise of the loss", note=f"on {loss['n']} general instructions", tone=tone,
                                     value=rise, low=loss["low"], high=loss["high"], shown=shown.replace("-", "−"),
                                     strong=True)],
                               zero=0.0, limit=told["limit"], show=lambda v: f"{100 * v:g} %")
        found["loss"] = loss
        found["within"] = rise <= told["limit"]
    if "difference" in choice:
        found["choice"] = forest(
            [Mark(label=LABELS[name], tone=name, value=choice[name]["value"], low=choice[name]["low"],
                  high=choice[name]["high"], shown=f"{100 * choice[name]['value']:.0f} %")
             for name in ("base", "tuned")], floor=0, ceiling=1, show=lambda v: f"{100 * v:.0f} %")
        found["choice_n"] = choice["base"]["n"]
    return found


def _retrieval(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report["retrieval"]
    if not told:
        return None
    marks = []
    for name, one in sorted(told.items(), key=lambda item: (item[0].startswith("mrr"), int(item[0].split("@")[1]))):
        k = "" if name.startswith("mrr") else name.partition("@")[2]
        label = f"Among the first {k}" if k not in ("", "1") else "Ranked first" if k else "Mean reciprocal rank"
        shown = f"{one['value']:.2f}" if name.startswith("mrr") else f"{100 * one['value']:.0f} %"
        marks.append(Mark(label=label, tone="retrieval", value=one["value"], low=one["low"], high=one["high"],
                          shown=shown, note=name))
    return {"plot": forest(marks, floor=0, ceiling=1, bars=True, show=lambda v: f"{100 * v:.0f} %"),
            "n": next(iter(told.values()))["n"]}


def _latency(report: Mapping[str, Any], systems: Sequence[str]) -> Forest | None:
    marks = []
    for system in systems:
        if one := report["systems"][system].get("latency_s"):
            marks.append(Mark(label=LABELS[system], tone=system, value=one["p50"], low=one["p50"], high=one["p95"],
                              shown=f"{one['p50']:.2f} s, slow ones {one['p95']:.2f} s"))
    return forest(marks, floor=0, bars=True, show=lambda v: f"{v:g} s") if marks else None


def _costs(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    wanted = (("CPU time of one request (median)", "cpu_p50", "{:.2f} s"),
              ("Tokens per second, one request", "tokens_per_s", "{:.1f}"),
              ("CPU time for 1,000 answers", "cpu_s_per_1000_answers", "{:,.0f} s"),
              ("Elapsed time for 1,000 answers, in batches", "wall_s_per_1000_answers", "{:,.0f} s"),
              ("Mean answer length", "mean_answer_tokens", "{:.0f} tokens"),
              ("Answers cut at the limit", "cut_share", "{:.0f} %"),
              ("Memory for weights and index", "memory_mb", "{:,.0f} MB"))
    found = []
    for label, key, shape in wanted:
        cells = [{**report["systems"][system], **report["systems"][system].get("latency_s", {})}.get(key)
                 for system in systems]
        if any(cell is not None for cell in cells):
            scale = 100 if key == "cut_share" else 1
            found.append({"label": label,
                          "cells": ["–" if cell is None else shape.format(scale * cell) for cell in cells]})
    return found


def _slices(report: Mapping[str, Any], systems: Sequence[str]) -> list[dict[str, Any]]:
    titles = {"maker": "By origin of the question", "document": "By document", "answerable": "By answerability"}
    kind = report["metric"]
    told = report["metrics"][kind]
    found = []
    for dimension, groups in report["slices"].items():
        rows = []
        for label, cells in groups.items():
            gap = cells.get("tuned_minus_base")
            rows.append({
                "label": MAKERS.get(label, label) if dimension == "maker" else label,
                "n": next((cells[s]["n"] for s in systems if s in cells), 0),
                "cells": [(figure(kind, told["unit"], cells[s]["value"]), _range(kind, told["unit"], cells[s]))
                          if s in cells else ("–", "") for s in systems],
                "gap": "" if gap is None else figure(kind, told["unit"], gap["value"], sign=True),
                "tone": "" if gap is None else _tone(told["better"], gap)})
        title = titles.get(dimension) or f"By {dimension.removeprefix('group:')}"
        found.append({"title": title, "rows": rows, "gap": any(row["gap"] for row in rows)})
    return found


def _judge(report: Mapping[str, Any]) -> dict[str, Any] | None:
    told = report.get("judge")
    if not told:
        return None
    if "skipped" in told:
        return {"skipped": told["skipped"], **told}
    pairwise = told["mode"] == "pairwise"
    marks = []
    for system, one in told["systems"].items():
        value = one["preferred" if pairwise else "grade"]
        if value:
            shown = f"{100 * value['value']:.0f} %" if pairwise else f"{value['value']:.2f}"
            agreed = one.get("agreement")
            note = "" if agreed is None else f"both orders agree in {100 * agreed:.0f} % of the questions"
            marks.append(Mark(label=LABELS[system], tone=system, value=value["value"], low=value["low"],
                              high=value["high"], shown=shown, note=note))
    plot = None
    if marks:
        plot = forest(marks, zero=0.5 if pairwise else None, floor=0, ceiling=1 if pairwise else 5,
                      show=(lambda v: f"{100 * v:.0f} %") if pairwise else (lambda v: f"{v:g}"))
    return {**told, "plot": plot, "against_label": LABELS.get(told.get("against", ""), "")}


def _examples(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
              systems: Sequence[str]) -> list[dict[str, Any]]:
    """Questions with every system's answer: largest gains, largest losses, and the middle, against the base."""
    wanted = report["settings"]["examples_shown"]
    by_question: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["answer"] is not None:
            by_question.setdefault(row["example"], {})[row["system"]] = row
    if not by_question or not wanted:
        return []
    scored = "answer_loss" if report["metric"] == "perplexity" else report["metric"]
    better = report["metrics"][scored]["better"]
    choice = report["verdict"]["choice"]
    focus = choice if choice != "base" else "tuned" if "tuned" in systems else systems[-1]

    def gain(key: str) -> float:
        mine, base = (by_question[key][system]["scores"][scored] or 0.0 for system in (focus, "base"))
        return (mine - base) * (1 if better == "higher" else -1) if focus != "base" else mine

    ranked = sorted(by_question, key=lambda key: (-gain(key), key))
    third = max(1, wanted // 3)
    up = [key for key in ranked[:third] if gain(key) > 0]
    down = [key for key in reversed(ranked[-third:]) if gain(key) < 0 and key not in up]
    rest = [key for key in ranked if key not in up and key not in down]
    start = max(0, (len(rest) - (wanted - len(up) - len(down))) // 2)
    middle = rest[start : start + max(0, wanted - len(up) - len(down))]
    groups = [(f"{LABELS[focus]} gained most over the base", up), (f"{LABELS[focus]} lost most against the base", down),
              ("In between", middle)]
    return [{"title": title, "items": [_example(report, by_question[key], systems, scored) for key in keys]}
            for title, keys in groups if keys]


def _example(report: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], systems: Sequence[str],
             scored: str) -> dict[str, Any]:
    first = next(iter(answers.values()))
    unit, language = report["metrics"][scored]["unit"], report["task"]["language"]
    held = set(content_words(first["reference"] or "", language))
    shown = []
    for system in systems:
        if row := answers.get(system):
            shown.append({
                "system": system, "label": LABELS[system], "text": _marked(row["answer"], held, language),
                "score": figure(scored, unit, row["scores"][scored]), "cut": row["finish"] == "length",
                "cites": [f"[{i}] {p['citation']}" for i, p in enumerate(row["passages"], start=1)]})
    origin = first["origin"]
    source = "; ".join(dict.fromkeys(p["citation"] for p in first["sources"])) or origin["where"]
    return {"question": first["question"], "reference": first["reference"], "source": source,
            "maker": MAKERS[origin["maker"]], "unanswerable": "unanswerable" in first["tags"], "answers": shown}


def _marked(text: str, held: set[str], language: str) -> Markup:
    """The answer with the content words that it shares with the reference marked."""
    if not text:
        return Markup("<i>(empty)</i>")
    parts = []
    for piece in re.split(r"(\W+)", text):
        shared = bool(piece) and piece[0].isalnum() and any(word in held for word in content_words(piece, language))
        parts.append(Markup("<mark>{}</mark>").format(piece) if shared else escape(piece))
    return Markup("").join(parts)
