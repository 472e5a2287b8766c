"""From per-question values to the report's figures: values, differences, lists, slices and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evaluate.base import Evaluate
from luthier.evaluate.compare import Bootstrap, Column, Measured
from luthier.evaluate.metrics import Metric
from luthier.evaluate.testset import TestSet
from luthier.evaluate.verdict import PAIRS, UNTUNED, Evidence, changes, decide

MAX_SLICES = 20
LISTED: tuple[tuple[str, str], ...] = (("tuned", "base"), ("tuned_retrieval", "retrieval"), ("retrieval", "base"))


@dataclass(frozen=True)
class Table:
    """Every value that was measured."""

    metrics: Sequence[Metric]
    decision: str
    draws: Bootstrap
    columns: Mapping[str, Mapping[str, Column]]
    """By system and metric."""

    def metric(self, kind: str) -> Metric:
        return next(metric for metric in self.metrics if metric.kind == kind)


def compare(table: Table, *, tests: Mapping[str, Any], spec: Evaluate,
            retention: Mapping[str, Any]) -> dict[str, Any]:
    """The report's verdict, test, metric, metrics, systems, differences and retention."""
    values: dict[str, dict[str, Measured]] = {}
    for system, columns in table.columns.items():
        measured = {kind: table.draws.measure(column) for kind, column in columns.items()}
        values[system] = {kind: one for kind, one in measured.items() if one is not None}
    gaps: dict[tuple[str, str, str], Measured] = {}
    differences = []
    for mine, theirs in PAIRS:
        if mine not in table.columns or theirs not in table.columns:
            continue
        for metric in table.metrics:
            pair = table.columns[mine][metric.kind], table.columns[theirs][metric.kind]
            gap = table.draws.difference(*pair)
            if gap is None:
                continue
            gaps[mine, theirs, metric.kind] = gap
            row = {"system": mine, "against": theirs, "metric": metric.kind, **gap.dump()}
            if metric.unit != "share":
                relative = table.draws.difference(*pair, relative=True)
                row["relative"] = None if relative is None else relative.dump()
            differences.append(row)
    verdict = decide(_evidence(table, values, gaps, tests, spec, retention))
    lists = _lists(table, values, gaps, retention)
    return {
        "verdict": {**verdict.dump(), **lists}, "test": dict(tests), "metric": table.decision,
        "metrics": {metric.kind: {"label": metric.label or metric.kind, "explanation": metric.explanation,
                                  "better": metric.better, "unit": metric.unit, "place": place}
                    for place, metric in enumerate(table.metrics)},
        "systems": {system: {"metrics": {kind: one.dump() for kind, one in found.items()}}
                    for system, found in values.items()},
        "differences": differences, "retention": dict(retention),
    }


def _evidence(table: Table, values: Mapping[str, Mapping[str, Measured]], gaps: Mapping[tuple[str, str, str], Measured],
              tests: Mapping[str, Any], spec: Evaluate, retention: Mapping[str, Any]) -> Evidence:
    metric = table.metric(table.decision)
    decided = {system: found[table.decision] for system, found in values.items() if table.decision in found}
    scale = 1.0 if metric.unit == "share" else abs(decided["base"].value)
    loss = retention.get("token_loss", {})
    warnings = []
    if tests["disjoint"] == "none":
        warnings.append("Warning: some test questions also stand in the training data, so the tuned systems look "
                        "better than they are.")
    return Evidence(
        label=_in_a_sentence(metric.label or metric.kind),
        better=metric.better, values=decided,
        differences={(mine, theirs): gap for (mine, theirs, kind), gap in gaps.items() if kind == table.decision},
        num_questions=next(iter(decided.values())).n, min_questions=spec.min_questions,
        worthwhile=spec.worthwhile * scale,
        retention=None if "relative_rise" not in loss else Measured(loss["relative_rise"], loss["low"], loss["high"],
                                                                    loss["n"]),
        max_retention_rise=spec.retention.max_rise,
        wrong_refusals={mine: gaps[mine, theirs, "refused_wrongly"] for mine, theirs in UNTUNED.items()
                        if (mine, theirs, "refused_wrongly") in gaps},
        max_wrong_refusal_rise=spec.max_wrong_refusal_rise, warnings=warnings,
    )


def _in_a_sentence(label: str) -> str:
    """`Word overlap` as it stands inside a sentence; `ROUGE…` keeps its capitals."""
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _lists(table: Table, values: Mapping[str, Mapping[str, Measured]],
           gaps: Mapping[tuple[str, str, str], Measured], retention: Mapping[str, Any]) -> dict[str, list[str]]:
    """IMPROVEMENTS, REGRESSIONS and NO CHANGE; perplexity is left out, it is the answer loss on another scale."""
    found: dict[str, list[str]] = {"improvements": [], "regressions": [], "no_change": []}
    for mine, theirs in LISTED:
        for metric in table.metrics:
            gap = gaps.get((mine, theirs, metric.kind))
            if gap is None or metric.kind == "perplexity":
                continue
            group, line = changes(metric.label or metric.kind, metric.better, (mine, theirs), gap,
                                  values[mine][metric.kind], values[theirs][metric.kind])
            found[group].append(line)
    loss = retention.get("token_loss", {})
    if "relative_rise" in loss and loss["low"] is not None:
        group = "regressions" if loss["low"] > 0 else "improvements" if loss["high"] < 0 else "no_change"
        found[group].append(f"General skills, token loss: {loss['base']:.3f} → {loss['tuned']:.3f} "
                            f"({100 * loss['relative_rise']:+.1f} %; 95 % interval {100 * loss['low']:+.1f} to "
                            f"{100 * loss['high']:+.1f} %; "
                            f"n = {loss['n']})")
    return found


def slices(table: Table, tests: TestSet, spec: Evaluate) -> dict[str, Any]:
    """The decision metric by maker, document, answerability and group, where a slice has enough questions."""
    dimensions: dict[str, list[str]] = {
        "maker": [example.origin.maker for example in tests.examples],
        "document": [_document(tests, place) for place in range(len(tests.examples))],
        "answerable": ["unanswerable" if "unanswerable" in e.tags else "answerable" for e in tests.examples],
    }
    for name in sorted({name for example in tests.examples for name in example.groups}):
        dimensions[f"group:{name}"] = [example.groups.get(name, "") for example in tests.examples]
    found: dict[str, Any] = {}
    for dimension, labels in dimensions.items():
        sizes = {label: labels.count(label) for label in dict.fromkeys(labels)}
        shown = sorted((label for label, size in sizes.items() if label and size >= spec.min_slice),
                       key=lambda label: (-sizes[label], label))[:MAX_SLICES]
        if len(sizes) > 1 and shown:
            found[dimension] = {label: _slice(table, tests, [i for i, one in enumerate(labels) if one == label], spec)
                                for label in shown}
    return found


def _slice(table: Table, tests: TestSet, places: Sequence[int], spec: Evaluate) -> dict[str, Any]:
    from luthier.evaluate.compare import units

    draws = Bootstrap(units([tests.examples[i] for i in places]).ids, samples=spec.bootstrap_samples, seed=spec.seed)
    cut = {}
    for system, columns in table.columns.items():
        whole = columns[table.decision]
        weights = None if whole.weights is None else [whole.weights[i] for i in places]
        cut[system] = Column([whole.values[i] for i in places], weights, whole.finish)
    found: dict[str, Any] = {}
    for system, column in cut.items():
        measured = draws.measure(column)
        if measured is not None:
            found[system] = measured.dump()
    if "tuned" in cut and "base" in cut:
        gap = draws.difference(cut["tuned"], cut["base"])
        found["tuned_minus_base"] = None if gap is None else gap.dump()
    return found


def _document(tests: TestSet, place: int) -> str:
    example = tests.examples[place]
    if example.id in tests.sources:
        return tests.sources[example.id][0].path
    return example.origin.documents[0] if example.origin.documents else ""
