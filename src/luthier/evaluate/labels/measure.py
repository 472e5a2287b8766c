"""One evaluation of a labelled task from start to end: ask, score, compare, decide, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luthier.evaluate.base import Evaluate
from luthier.evaluate.labels import sections
from luthier.evaluate.labels.bench import Bench, Said, open_bench
from luthier.evaluate.labels.classes import Found, classify
from luthier.evaluate.labels.metrics import Sets
from luthier.evaluate.labels.outcome import compare, metrics_for, replicates, slices
from luthier.evaluate.labels.sequence import sequence
from luthier.evaluate.labels.verdict import ORDER
from luthier.progress import Progress
from luthier.store import Artifact, Store, write_json, write_text
from luthier.task import Task
from luthier.types import Example, write_jsonl

TOP = 3
"""Classes told for each row and system in predictions.jsonl."""


def measure_labels(folder: Path, *, data: Artifact, model: Artifact, run: Artifact | None, task: Task, spec: Evaluate,
                   store: Store, root: Path, progress: Progress) -> Mapping[str, Any]:
    """Fill the artifact's folder; see `luthier.evaluate.evaluate`. Returns its summary."""
    from luthier.adapt.base import read_facts

    began = time.monotonic()
    bench = open_bench(data=data, model=model, run=run, task=task, spec=spec, store=store, root=root,
                       progress=progress)
    found: Found | None = None
    if task.type in ("classify", "image"):
        found = classify(bench)
        said, latency = found.said, found.latency
    elif task.type == "tag":
        from luthier.evaluate.labels.tagging import tag

        said, latency = tag(bench)
    else:
        from luthier.evaluate.labels.search import search

        said, latency = search(bench)
    if run is None:
        bench.notes.append("There is no trained run, so nothing tuned was compared.")
    said = {system: said[system] for system in ORDER if system in said}
    shape = next(iter(said.values())).answers.shape
    metrics, draws = metrics_for(bench, shape), replicates(bench)
    report, _ = compare(bench, said, metrics, draws)
    decision = next(metric for metric in metrics if metric.name == task.metric)
    facts = read_facts(model)
    focus = "tuned" if "tuned" in said else [*said][-1]
    report |= {
        "focus": focus, "slices": slices(bench, said, decision), "retention": {}, "retrieval": {}, "judge": None,
        "gap": None if run is None else run.summary.get("gap"), "latency": latency,
        "model": {"name": facts["name"], "source": facts["source"], "parameters": facts.get("parameters")},
        "artifacts": {name: None if one is None else f"{one.stage}/{one.id}"
                      for name, one in (("data", data), ("model", model), ("run", run))},
        "settings": spec.dump(), "task": task.dump(), "labels": list(bench.labels),
    }
    if "tuned" in said and "single_ms_p50" in latency:
        report["systems"]["tuned"]["latency_s"] = {"p50": latency["single_ms_p50"] / 1000,
                                                   "p95": latency["single_ms_p95"] / 1000, "n": latency["n"]}
    report["sequence"] = sequence(bench) if found is not None else None
    report |= _class_sections(bench, found, said[focus], draws, focus) if found is not None else \
        _tag_sections(bench, said[focus], draws) if task.type == "tag" else {}
    if found is not None and found.tuned is not None:  # what serving divides the logits by
        write_json(folder / "calibration.json", {
            "temperature": report["calibration"]["temperature"], "labels": list(bench.labels),
            "thresholds": {row["label"]: row["threshold"] for row in report["thresholds"]["labels"]},
            "abstain": {row["name"]: row["threshold"] for row in report["thresholds"].get("abstain", [])},
            "out_of_scope": {row["rule"]: row["threshold"] for row in (report["out_of_scope"] or {"rules": []})["rules"]
                             if "threshold" in row}})
    rows = predictions(bench, said)
    report |= {"notes": bench.notes, "mistakes": mistakes(rows, focus, spec.labels.mistakes_shown, root),
               "resources": {"peak_memory_mb": _peak_mb(), "seconds": round(time.monotonic() - began, 1)}}
    write_jsonl(folder / "predictions.jsonl", rows)
    write_json(folder / "report.json", report)
    from luthier.evaluate.labels.report import render

    write_text(folder / "report.html", render(report, root))
    progress.say(f"  {report['verdict']['sentence']}")
    return {"verdict": {key: report["verdict"][key] for key in ("choice", "sentence", "conclusive")},
            "metric": task.metric, "num_questions": bench.facts["num_questions"],
            "values": {system: report["systems"][system]["metrics"][task.metric] for system in said}}


def _class_sections(bench: Bench, found: Found, focus: Said, draws: Any, name: str) -> dict[str, Any]:
    answers: Any = focus.answers
    parts: dict[str, Any] = {
        "classes": sections.by_class(answers, bench.labels, draws),
        "confusion": sections.confusions(answers, bench.labels),
        "abstention": sections.abstention(answers, bench.task.abstain),
        "calibration": None, "thresholds": None, "out_of_scope": None}
    if found.tuned is not None:
        parts |= {
            "calibration": sections.calibration(bench, found.tuned, answers.right),
            "thresholds": sections.cost_table(bench, found, answers, bench.targets(bench.validation)),
            "out_of_scope": sections.out_of_scope(bench, found.tuned, answers.right)}
    return parts


def _tag_sections(bench: Bench, focus: Said, draws: Any) -> dict[str, Any]:
    from luthier.evaluate.labels.tagging import kinds_of

    answers: Any = focus.answers
    return {"classes": sections.by_class(answers, kinds_of(bench), draws)}


def predictions(bench: Bench, said: Mapping[str, Said]) -> list[dict[str, Any]]:
    """`predictions.jsonl`: one line per test row, with what is right and what every system said."""
    rows = []
    for at, example in enumerate(bench.test):
        row: dict[str, Any] = {
            "example": example.id, "where": example.origin.where, "text": example.question, "image": example.image,
            "right": _right(bench.task, example), "tags": list(example.tags), "groups": dict(example.groups),
            "documents": list(example.origin.documents)}
        row["systems"] = {system: _answer(bench, one, at) for system, one in said.items()}
        rows.append(row)
    return rows


def _right(task: Task, example: Example) -> Any:
    if task.type == "tag":
        return [[tag.start, tag.end, tag.label] for tag in example.spans or ()]
    if task.type == "embed":
        return [example.target]
    return list(example.labels or ())


def _answer(bench: Bench, said: Said, at: int) -> dict[str, Any]:
    answers: Any = said.answers
    if bench.task.type == "tag":
        exact = bool((answers.hit[at] == answers.right[at]).all() and (answers.hit[at] == answers.said[at]).all())
        return {"said": [list(piece) for piece in said.shown[at]], "right": exact}
    if bench.task.type == "embed":
        place = int(answers.places[at][0])
        return {"said": said.shown[at], "place": place + 1, "right": place == 0}
    probs = answers.probabilities[at]
    best = np.argsort(-probs, kind="stable")[:TOP]
    top = [[bench.labels[c], round(float(probs[c]), 5)] for c in best]
    if isinstance(answers, Sets):
        given = [bench.labels[c] for c in np.flatnonzero(answers.said[at])]
        sure = float(np.maximum(probs, 1 - probs).min())
        return {"said": given, "probability": round(sure, 5), "top": top,
                "right": bool((answers.said[at] == answers.right[at]).all())}
    return {"said": [top[0][0]], "probability": top[0][1], "top": top, "right": bool(best[0] == answers.right[at])}


def mistakes(rows: Sequence[Mapping[str, Any]], focus: str, most: int, root: Path) -> list[dict[str, Any]]:
    """The wrong answers given with most confidence; for tags and searches the first wrong rows, worst first."""
    wrong = [row for row in rows if not row["systems"][focus]["right"]]

    def badness(row: Mapping[str, Any]) -> float:
        answer = row["systems"][focus]
        if "place" in answer:
            return float(answer["place"])
        return float(answer.get("probability", len(answer["said"])))

    return [dict(row) for row in sorted(wrong, key=lambda row: (-badness(row), row["example"]))[:most]]


def _peak_mb() -> float:
    """Most memory this process has held so far."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
