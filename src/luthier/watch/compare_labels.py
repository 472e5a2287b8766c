"""Comparing two models of a labelled task: the released champion as it serves, and the challenger as it would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from luthier.adapt import predict
from luthier.adapt.labelled import load_label_model
from luthier.adapt.network import LabelModel
from luthier.adapt.spans import decode_spans
from luthier.evaluate.base import read_report
from luthier.evaluate.compare import units, wilson
from luthier.evaluate.labels import spans
from luthier.evaluate.labels.bench import Bench, Said, open_bench
from luthier.evaluate.labels.intervals import Replicates
from luthier.evaluate.labels.measure import predictions
from luthier.evaluate.labels.metrics import LABEL_METRICS, Classes, LabelMetric, Sets
from luthier.evaluate.labels.outcome import cut
from luthier.progress import Progress
from luthier.project.base import Project
from luthier.release.labels import decisions, open_at, set_root
from luthier.release.untuned import untuned_model
from luthier.types import Example
from luthier.watch.compare import LEAST_SURE, SHOWN, SIDES, Compared, Sides
from luthier.watch.data import read_described


def compare_labels(sides: Sides, project: Project, *, progress: Progress) -> Compared:
    """Ask both about every test row of the update's data."""
    spec, task = project.spec, project.spec.task
    bench = open_bench(data=sides.data, model=sides.model, run=sides.run, task=task, spec=spec.evaluate,
                       store=project.store, root=project.root, progress=progress)
    texts: tuple[Any, ...] = ()
    if task.type == "embed":
        from luthier.evaluate.labels.search import candidates

        searched, queries, wanted = candidates(bench)
        bench.test, texts = queries, (searched, wanted)
    said: dict[str, Said] = {}
    extra: dict[str, Any] = {}
    for side in SIDES:
        progress.say(f"  {side}")
        model, thresholds = _champion(sides, project) if side == "champion" else _challenger(sides, project, progress)
        said[side] = _ask(model, bench, thresholds, texts, side)
        answers = said[side].answers
        if side == "champion" and isinstance(answers, Classes):
            extra["contradicted"] = contradicted(model, bench, fresh_rows(sides), answers, sure=spec.watch.gate.sure)
    metric: LabelMetric = LABEL_METRICS.get(task.metric)()  # type: ignore[assignment]

    def measure(name: str, places: Sequence[int]) -> dict[str, Any] | None:
        draws = Replicates(units([bench.test[at] for at in places]).ids, samples=spec.evaluate.bootstrap_samples,
                           seed=spec.evaluate.seed)
        found = {side: metric.estimate(cut(said[side].answers, places), draws) for side in SIDES}
        if found["champion"] is None or found["challenger"] is None:
            return None
        return {**{side: draws.measured(one).dump() for side, one in found.items()},  # type: ignore[arg-type]
                "difference": draws.difference(found["challenger"], found["champion"]).dump()}

    return Compared(examples=bench.test, rows=predictions(bench, said), measure=measure, extra=extra, metrics={
        metric.name: {"label": metric.label, "better": metric.better, "relative": False}})


def _champion(sides: Sides, project: Project) -> tuple[LabelModel, Mapping[str, float]]:
    """The released model as the server decides with it."""
    record = sides.champion.record
    model = load_label_model(record.folder / "model")
    set_root(model, project.root)
    return model, (record.labels or {}).get("thresholds", {})


def _challenger(sides: Sides, project: Project, progress: Progress) -> tuple[LabelModel, Mapping[str, float]]:
    """The model that would be released."""
    if sides.choice == "tuned":
        model = open_at(sides.run.path / "best", project.root)
        settings = decisions(sides.report, model, project.spec.release, sides.choice)
        return model.but(temperature=settings["temperature"]), settings["thresholds"]
    model, _ = untuned_model(sides.choice, found=read_report(sides.report), task=project.spec.task, model=sides.model,
                             data=sides.data, store=project.store, root=project.root, progress=progress)
    return model, {}


def _ask(model: LabelModel, bench: Bench, thresholds: Mapping[str, float], texts: tuple[Any, ...], side: str) -> Said:
    if bench.task.type == "tag":
        return _tagged(model, bench, side)
    if bench.task.type == "embed":
        return _ranked(model, bench, texts[0], texts[1], side)
    rows = model.rows([replace(example, labels=None, target=None) for example in bench.test], targets=False)
    logits = predict.logits(model, rows, progress=bench.progress, what=f"test rows, {side}")
    probs = spread_classes(predict.probabilities(logits, multi_label=bench.task.multi_label,
                                                 temperature=model.temperature), model.labels, bench.labels)
    right = bench.targets(bench.test)
    if not bench.task.multi_label:
        return Said(Classes(right, probs))
    return Said(Sets(right, probs, np.array([thresholds.get(label, 0.5) for label in bench.labels])))


def spread_classes(probs: np.ndarray, own: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Probabilities [rows, own] at the places of `labels`; 0 for a class that the model never heard of."""
    found = np.zeros((len(probs), len(labels)), dtype=np.float64)
    place = {label: at for at, label in enumerate(labels)}
    for at, label in enumerate(own):
        if label in place:
            found[:, place[label]] = probs[:, at]
    return found


def _tagged(model: LabelModel, bench: Bench, side: str) -> Said:
    right = [spans.as_pieces(example.spans or ()) for example in bench.test]
    rows = model.rows(bench.test, targets=False)
    logits = predict.tag_logits(model, rows, progress=bench.progress, what=f"test rows, {side}")
    given = [spans.as_pieces(tags) for tags in decode_spans(model, bench.test, rows, logits)]
    kinds = sorted({kind for row in [*right, *given] for _, _, kind in row} | set(bench.labels))
    return Said(spans.compare([example.question for example in bench.test], right, given, kinds), shown=given)


def _ranked(model: LabelModel, bench: Bench, searched: Sequence[str], wanted: Sequence[Sequence[int]], side: str
            ) -> Said:
    from luthier.adapt.backbones.base import Row
    from luthier.evaluate.labels import ranking
    from luthier.evaluate.labels.metrics import Ranks

    processor: Any = model.processor
    rows = [Row(str(at), tuple(ids), len(ids)) for at, ids in enumerate(processor.encode(searched))]
    documents = predict.logits(model, rows, progress=bench.progress, what=f"texts, {side}")
    queries = predict.logits(model, model.rows(bench.test, targets=False), progress=bench.progress,
                             what=f"queries, {side}")
    scores = queries @ documents.T
    shown = [[searched[at] for at in np.argsort(-row, kind="stable")[:1]] for row in scores]
    return Said(Ranks(tuple(ranking.places(scores, wanted))), shown=shown)


def fresh_rows(sides: Sides) -> list[Example]:
    """New and changed rows, of all splits."""
    from luthier.prepare.base import read_examples

    told = read_described(sides.data)
    fresh = {*told["new"], *(row["id"] for row in told["changed"])}
    return [example for example in read_examples(sides.data) if example.id in fresh and example.labels]


def contradicted(champion: LabelModel, bench: Bench, rows: Sequence[Example], answers: Classes, *, sure: float
                 ) -> dict[str, Any]:
    """How often the champion is sure of another label than a new row has, among the rows that it is sure of and whose
    label it knows: the sign of wrong labels that confident learning reads (Northcutt, Jiang & Chuang 2021).

    `agreement` is for a champion that is seldom sure: how often it says a new row's label, against how often it is
    right on the old test rows (`answers` to all test rows), with the interval of Newcombe (1998, method 10).
    """
    known = [example for example in rows if set(example.labels or ()) <= set(champion.labels)]
    if not known:
        return {"n": 0, "sure": 0, "contradicted": 0, "share": None, "low": None, "high": None, "rows": [],
                "agreement": None}
    asked = champion.rows([replace(example, labels=None, target=None) for example in known], targets=False)
    probs = predict.probabilities(predict.logits(champion, asked, progress=bench.progress, what="labels of new rows"),
                                  temperature=champion.temperature)
    best, top = probs.argmax(1), probs.max(1)
    labels = [(example.labels or ("",))[0] for example in known]
    certain = [at for at in range(len(known)) if top[at] >= sure]
    against = [at for at in range(len(known)) if champion.labels[best[at]] != labels[at]]
    surely = [at for at in against if top[at] >= sure]
    share = len(surely) / len(certain) if certain else None
    low, high = wilson(share, len(certain)) if share is not None else (None, None)
    told = [{"where": known[at].origin.where, "text": known[at].question[:200], "label": labels[at],
             "champion": champion.labels[best[at]], "probability": round(float(top[at]), 4)}
            for at in sorted(surely if len(certain) >= LEAST_SURE else against, key=lambda at: -top[at])]
    fresh = {example.id for example in rows}
    old = [at for at, example in enumerate(bench.test) if example.id not in fresh
           and set(example.labels or ()) <= set(champion.labels)]
    hits = int((answers.said[old] == answers.right[old]).sum())
    return {"n": len(known), "sure": len(certain), "contradicted": len(surely), "share": share, "low": low,
            "high": high, "rows": told[:SHOWN],
            "agreement": fall(hits, len(old), len(known) - len(against), len(known)) if old else None}


def fall(hits: int, n: int, later_hits: int, later_n: int) -> dict[str, Any]:
    """The difference of two shares of different rows, the earlier minus the later, with its 95 % interval."""
    old, new = hits / n, later_hits / later_n
    (old_low, old_high), (new_low, new_high) = wilson(old, n), wilson(new, later_n)
    gap = old - new
    return {"old": old, "old_n": n, "new": new, "new_n": later_n, "fall": gap,
            "low": gap - math.hypot(old - old_low, new_high - new),
            "high": gap + math.hypot(old_high - old, new - new_low)}
