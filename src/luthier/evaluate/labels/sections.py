"""Parts of a classifier's report: classes, confusions, calibration, costs, abstention, out of scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luthier.evaluate.compare import Measured
from luthier.evaluate.labels import thresholds
from luthier.evaluate.labels.bench import Bench
from luthier.evaluate.labels.calibrate import calibration_error, decisions, probabilities, reliability
from luthier.evaluate.labels.classes import Found, Tuned, centre_rows
from luthier.evaluate.labels.counts import confusion, per_class
from luthier.evaluate.labels.curves import roc_auc, roc_points
from luthier.evaluate.labels.intervals import Estimate, Replicates
from luthier.evaluate.labels.metrics import Classes, Sets, Spans, counts

HEAT_MAP = 20
"""Up to this many classes the whole confusion matrix is shown."""
PAIRS = 15
"""Pairs of classes shown as most confused."""
COVERAGES = (0.99, 0.95, 0.9, 0.8)


def by_class(answers: Classes | Sets | Spans, names: Sequence[str], draws: Replicates) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class with intervals, lowest F1 first."""
    total, each = counts(answers, draws)
    units = draws.bootstrap.num_units
    found = []
    for c, name in enumerate(names):
        row: dict[str, Any] = {"label": name, "n": int(total.right[c]), "said": int(total.said[c])}
        for which in ("precision", "recall", "f1"):
            value, spread = per_class(total, which)[c], per_class(each, which)[:, c]
            one = Measured(float(value), None, None, row["n"])
            if row["n"] and units > 1:
                one = draws.measured(Estimate(float(value), spread, row["n"]))
            row[which] = one.dump()
        found.append(row)
    return sorted(found, key=lambda row: (row["n"] == 0, row["f1"]["value"], row["label"]))


def confusions(answers: Classes | Sets, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix of few classes, and the pairs most often confused; for sets, what is missed and added."""
    if isinstance(answers, Sets):
        missed, added = (answers.right & ~answers.said).sum(0), (answers.said & ~answers.right).sum(0)
        return {"labels": [{"label": name, "missed": int(missed[c]), "added": int(added[c])}
                           for c, name in enumerate(names)]}
    table = confusion(answers.right, answers.said, len(names))
    off = table - np.diag(np.diag(table))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    found: dict[str, Any] = {"pairs": [
        {"right": names[i], "said": names[j], "n": int(off[i, j]), "of": int(table[i].sum())}
        for i, j in (divmod(int(at), len(names)) for at in order) if off[i, j]]}
    if len(names) <= HEAT_MAP:
        found |= {"matrix": table.tolist(), "labels": list(names)}
    return found


def calibration(bench: Bench, tuned: Tuned, right: np.ndarray) -> dict[str, Any]:
    """The temperature, and the calibration error and reliability of the test rows before and after it."""
    found: dict[str, Any] = {"temperature": round(tuned.temperature, 6), "fitted_on": len(tuned.validation)}
    for name, temperature in (("before", 1.0), ("after", tuned.temperature)):
        probs = probabilities(tuned.test, bench.task.multi_label, temperature)
        confidence, hits = decisions(right, probs)
        found[name] = {"ece": round(calibration_error(confidence, hits), 6),
                       "ece_equal_mass": round(calibration_error(confidence, hits, kind="equal_mass"), 6),
                       "bins": [one.dump() for one in reliability(confidence, hits)]}
    return found


def sureness(answers: Classes | Sets) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, hits) of whole rows: the likeliest class, or the least certain of a row's labels."""
    if isinstance(answers, Classes):
        return decisions(answers.right, answers.probabilities)
    p = answers.probabilities
    return np.maximum(p, 1 - p).min(1), (answers.said == answers.right).all(1).astype(np.float64)


def abstention(answers: Classes | Sets, task_level: float) -> dict[str, Any]:
    """How right the answers are when only the surest are given."""
    confidence, hits = sureness(answers)
    curve = thresholds.abstention_curve(confidence, hits)
    points = []
    for wanted in COVERAGES:
        at = min(int(np.searchsorted(curve.coverage, wanted)), len(curve.coverage) - 1)
        points.append({"coverage": float(curve.coverage[at]), "accuracy": float(curve.accuracy[at]),
                       "threshold": float(curve.threshold[at])})
    answered = confidence >= task_level
    return {"aurc": round(curve.aurc, 6), "best_aurc": round(curve.best_aurc, 6), "curve": thresholds.thin(curve),
            "points": points, "task": {"threshold": task_level, "coverage": float(answered.mean()),
                                       "accuracy": float(hits[answered].mean()) if answered.any() else None}}


def cost_table(bench: Bench, found: Found, answers: Classes | Sets, validation_right: np.ndarray) -> dict[str, Any]:
    """Thresholds that cost least on the validation rows, and what they cost on the test rows."""
    costs, probs = bench.spec.labels.costs, found.validation["tuned"]
    told: dict[str, Any] = {"costs": costs.dump(), "labels": []}
    if not len(probs):
        return {**told, "skipped": "there are no validation rows to fit thresholds on"}
    if isinstance(answers, Classes):
        inside, outside = sureness(Classes(validation_right, probs)), sureness(answers)
        fitted = thresholds.fit_abstain(*inside, costs)
        told["abstain"] = [
            _abstain_row(name, threshold, outside, costs) for name, threshold in
            (("always answer", 0.0), ("rule for calibrated probabilities", thresholds.chow(costs)),
             ("fitted on validation rows", fitted.threshold))]
    columns = _columns(bench, answers)
    rule = costs.false_positive / (costs.false_positive + costs.false_negative)
    for c in columns:
        if isinstance(answers, Sets):
            yes, own = validation_right[:, c], answers.right[:, c]
        else:
            yes, own = validation_right == c, answers.right == c
        cut = thresholds.fit_yes_no(yes, probs[:, c], costs)
        scores = answers.probabilities[:, c]
        given = scores >= cut.threshold
        told["labels"].append({
            "label": bench.labels[c], "n": int(own.sum()), "rule": round(rule, 6),
            "threshold": round(cut.threshold, 6), "validation_cost": round(cut.cost, 6),
            "cost": round(thresholds.yes_no_cost(own, scores, cut.threshold, costs), 6),
            "cost_rule": round(thresholds.yes_no_cost(own, scores, rule, costs), 6),
            "cost_half": round(thresholds.yes_no_cost(own, scores, 0.5, costs), 6),
            "precision": float(own[given].mean()) if given.any() else None,
            "recall": float(given[own].mean()) if own.any() else None})
    return told


def _columns(bench: Bench, answers: Classes | Sets) -> list[int]:
    """Classes whose yes and no have costs: every label of several, the positive one of two."""
    if isinstance(answers, Sets):
        return list(range(len(bench.labels)))
    positive = bench.spec.labels.costs.positive
    if len(bench.labels) != 2:
        return []
    if positive in bench.labels:
        return [bench.labels.index(positive)]
    if positive is not None:
        bench.notes.append(f"evaluate.labels.costs.positive is '{positive}', which is none of the classes "
                           f"({', '.join(bench.labels)}); the rarer class was taken.")
    targets = bench.targets(bench.train)
    return [int(np.bincount(targets, minlength=2).argmin())]


def _abstain_row(name: str, threshold: float, outside: tuple[np.ndarray, np.ndarray], costs: Any) -> dict[str, Any]:
    confidence, hits = outside
    answered = confidence >= threshold
    return {"name": name, "threshold": round(float(threshold), 6), "coverage": float(answered.mean()),
            "accuracy": float(hits[answered].mean()) if answered.any() else None,
            "cost": round(thresholds.abstain_cost(confidence, hits, threshold, costs), 6)}


def out_of_scope(bench: Bench, tuned: Tuned, right: np.ndarray) -> dict[str, Any] | None:
    """How well inputs that belong to no class are told apart, by each rule, and the thresholds proposed."""
    if not bench.foreign or right.ndim == 2:
        return None
    parts: dict[str, dict[str, np.ndarray]] = {}
    centres = None
    if tuned.features is not None:
        centres = thresholds.class_centres(tuned.features[0], bench.targets(centre_rows(bench)), len(bench.labels))
    own = (None, None, None) if tuned.features is None else tuned.features[1:]
    for name, logits, features in zip(("validation", "test", "foreign"), (tuned.validation, tuned.test, tuned.foreign),
                                      own, strict=True):
        probs = probabilities(logits, False, tuned.temperature)
        parts[name] = thresholds.scope_scores(logits, probs, tuned.temperature, features, centres)
    draws = Replicates([example.id for example in (*bench.test, *bench.foreign)],
                       samples=bench.spec.bootstrap_samples, seed=bench.spec.seed)
    inside = np.arange(draws.n) < len(bench.test)
    rows = []
    for rule, scores in parts["test"].items():
        area = roc_auc(inside, np.concatenate([scores, parts["foreign"][rule]]))
        assert area is not None
        row: dict[str, Any] = {"rule": rule, "auroc": draws.measured(draws.linear(area.value, area.effects)).dump()}
        known = parts["validation"].get(rule)
        if known is not None and len(known):
            cut = float(np.quantile(known, 1 - bench.spec.labels.keep_in_scope))
            row |= {"threshold": round(cut, 6), "kept": float((scores >= cut).mean()),
                    "refused": float((parts["foreign"][rule] < cut).mean())}
        rows.append(row)
    level = bench.task.abstain
    best = max(rows, key=lambda row: row["auroc"]["value"])["rule"]
    points = roc_points(~inside, -np.concatenate([parts["test"][best], parts["foreign"][best]]), most=60)
    return {"n": len(bench.foreign), "rules": rows, "best": best, "keep": bench.spec.labels.keep_in_scope,
            "roc": [[round(x, 4), round(y, 4)] for x, y in points],
            "task": {"threshold": level, "refused": float((parts["foreign"]["max_probability"] < level).mean())}}
