"""From the systems' answers to figures: values, differences, lists, slices and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from luthier.evaluate.compare import Measured, units
from luthier.evaluate.labels.bench import Bench, Said
from luthier.evaluate.labels.intervals import Replicates
from luthier.evaluate.labels.metrics import LABEL_METRICS, LabelMetric, Scored, Spans, fitting, score
from luthier.evaluate.labels.verdict import LADDER, NAMES, pairs, rival
from luthier.evaluate.verdict import Evidence, changes, decide

MAX_SLICES = 20


def metrics_for(bench: Bench, shape: Any) -> tuple[LabelMetric, ...]:
    """The measures of the report, the task's own among them, in order."""
    asked = bench.spec.labels.metrics
    if asked is None:
        return fitting(shape)
    unfit = [metric.kind for metric in asked if shape not in metric.fits]
    if unfit:
        bench.notes.append(f"These measures do not fit the task and were left out: {', '.join(unfit)}.")
    found = [metric for metric in asked if shape in metric.fits]
    if all(metric.name != bench.task.metric for metric in found):
        found.insert(0, LABEL_METRICS.get(bench.task.metric)())  # type: ignore[arg-type]
    return tuple(found)


def replicates(bench: Bench) -> Replicates:
    return Replicates(units(bench.test).ids, samples=bench.spec.bootstrap_samples, seed=bench.spec.seed)


def compare(bench: Bench, said: Mapping[str, Said], metrics: Sequence[LabelMetric], draws: Replicates
            ) -> tuple[dict[str, Any], dict[str, Scored]]:
    """The report's verdict, test, metric, metrics, systems and differences."""
    scored = {system: score(one.answers, tuple(metrics), draws) for system, one in said.items()}
    values = {system: {name: draws.measured(one) for name, one in found.estimates.items()}
              for system, found in scored.items()}
    by_name = {metric.name: metric for metric in metrics}
    gaps: dict[tuple[str, str, str], Measured] = {}
    for mine, theirs in pairs([*said]):
        for name in by_name:
            if name in scored[mine].estimates and name in scored[theirs].estimates:
                gaps[mine, theirs, name] = draws.difference(scored[mine].estimates[name],
                                                            scored[theirs].estimates[name])
    decision = by_name[bench.task.metric]
    verdict = decide(_evidence(bench, decision, values, gaps))
    best = rival({system: found[decision.name].value for system, found in values.items()},
                 lower=decision.better == "lower")
    lists: dict[str, list[str]] = {"improvements": [], "regressions": [], "no_change": []}
    for name, metric in by_name.items():
        if best is not None and ("tuned", best, name) in gaps:
            group, line = changes(metric.label, metric.better, ("tuned", best), gaps["tuned", best, name],
                                  values["tuned"][name], values[best][name], NAMES)
            lists[group].append(line)
    return {
        "verdict": {**verdict.dump(), **lists}, "test": dict(bench.facts), "metric": decision.name, "rival": best,
        "metrics": {name: {"label": metric.label, "explanation": metric.explanation, "better": metric.better,
                           "unit": metric.unit, "place": place}
                    for place, (name, metric) in enumerate(by_name.items())},
        "systems": {system: {"metrics": {name: one.dump() for name, one in found.items()}, **said[system].facts}
                    for system, found in values.items()},
        "differences": [{"system": mine, "against": theirs, "metric": name, **gap.dump()}
                        for (mine, theirs, name), gap in gaps.items()],
    }, scored


def _evidence(bench: Bench, metric: LabelMetric, values: Mapping[str, Mapping[str, Measured]],
              gaps: Mapping[tuple[str, str, str], Measured]) -> Evidence:
    warnings = []
    if bench.facts["disjoint"] == "none":
        warnings.append("Warning: some test rows also stand in the training data, so trained systems look better than "
                        "they are.")
    label = metric.label
    return Evidence(
        label=label[0].lower() + label[1:] if label[1:2].islower() else label, better=metric.better,
        values={system: found[metric.name] for system, found in values.items() if metric.name in found},
        differences={(mine, theirs): gap for (mine, theirs, name), gap in gaps.items() if name == metric.name},
        num_questions=bench.facts["num_questions"], min_questions=bench.spec.min_questions,
        worthwhile=bench.spec.labels.worthwhile, warnings=warnings, ladder=LADDER)


def slices(bench: Bench, said: Mapping[str, Said], metric: LabelMetric) -> dict[str, Any]:
    """The decision metric within groups of rows (language, segment, …) that are large enough."""
    found: dict[str, Any] = {}
    for group in sorted({name for example in bench.test for name in example.groups}):
        values = [example.groups.get(group, "") for example in bench.test]
        sizes = {value: values.count(value) for value in dict.fromkeys(values)}
        shown = sorted((value for value, size in sizes.items() if value and size >= bench.spec.min_slice),
                       key=lambda value: (-sizes[value], value))[:MAX_SLICES]
        if len(sizes) > 1 and shown:
            found[f"group:{group}"] = {value: _slice(bench, said, metric, [i for i, one in enumerate(values)
                                                                          if one == value]) for value in shown}
    return found


def _slice(bench: Bench, said: Mapping[str, Said], metric: LabelMetric, places: Sequence[int]) -> dict[str, Any]:
    draws = Replicates(units([bench.test[i] for i in places]).ids, samples=bench.spec.bootstrap_samples,
                       seed=bench.spec.seed)
    found = {}
    for system, one in said.items():
        estimate = metric.estimate(cut(one.answers, places), draws)
        if estimate is not None:
            found[system] = draws.measured(estimate).dump()
    return found


def cut(answers: Any, places: Sequence[int]) -> Any:
    """The answers to some of the rows."""
    at = np.asarray(places)
    if isinstance(answers, Spans):
        return Spans(*(getattr(answers, name)[at] for name in ("hit", "right", "said", "words", "words_right")))
    if hasattr(answers, "places"):
        return replace(answers, places=tuple(answers.places[i] for i in places))
    return replace(answers, right=answers.right[at], probabilities=answers.probabilities[at])
