"""What the benchmarks of labelled tasks share: real data through the product's own stages, test scores, intervals."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from luthier.adapt import predict
from luthier.adapt.base import Adapt, adapt
from luthier.evaluate.labels import baselines
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.ingest.base import Ingest, ingest
from luthier.prepare.base import Prepare, prepare, read_examples
from luthier.prepare.labels import read_labels
from luthier.prepare.split import SplitBy
from luthier.progress import JsonLines, Progress, Silent
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.types import Example

QUIET: Progress = Silent()
LOUD: Progress = JsonLines()


def tables(store: Store, task: Task, files: Sequence[dict[str, Any]], *, validation: float = 0.1) -> Artifact:
    """Prepare tables (or folders of images) of the shared data; `files` are makers as YAML would name them."""
    nothing = ingest([], Ingest(sources=()), store=store)
    spec = Prepare(makers=tuple(files), split=SplitBy(validation=validation))
    return prepare(nothing, task, spec, store=store, root=common.data_folder())


def base(store: Store, task: Task, **options: Any) -> Artifact:
    model = "starter:image" if task.type == "image" else "starter:encoder"
    return adapt(task, Adapt(**{"model": model, **options}), store=store, root=common.HERE)


def fitted(store: Store, model: Artifact, data: Artifact, spec: Train, *, watch: Any = None) -> dict[str, Any]:
    """Train, then score the test rows once. `cpu_s` is the whole call, features and contract included (little where a
    finished run was found again); `train_cpu_s` the updates alone."""
    began, cpu = time.monotonic(), common.cpu_seconds()
    run = train(model, data, spec, store=store, root=common.data_folder(), progress=QUIET, watch=watch)
    used, waited = common.cpu_seconds() - cpu, time.monotonic() - began
    tuned = open_tuned_labels(run, root=common.data_folder())
    test = [e for e in read_examples(data, "test") if e.labels]
    rows = tuned.rows(test)
    logits = predict.logits(tuned, rows)
    right = np.array([row.target for row in rows])
    chances = predict.probabilities(logits)
    return {"accuracy": float((logits.argmax(1) == right).mean()), "n": len(rows),
            "log_loss": float(-np.log(np.clip(chances[np.arange(len(right)), right], 1e-12, 1)).mean()),
            "validation": run.summary["validation"]["value"] if run.summary.get("validation") else None,
            "updates": run.summary.get("steps"), "stopped_early": run.summary.get("stopped_early"),
            "gap": run.summary.get("gap"),
            "train_cpu_s": run.summary.get("train_cpu_s"), "cpu_s": round(used, 1), "wall_s": round(waited, 1),
            "hits": (logits.argmax(1) == right).tolist()}


def splits(data: Artifact, texts: bool = True) -> tuple[list[str], dict[str, list[Example]], dict[str, np.ndarray]]:
    """Labels, labelled examples and their class numbers by split."""
    labels = list(read_labels(data))
    place = {label: at for at, label in enumerate(labels)}
    examples = {s: [e for e in read_examples(data, s) if e.labels] for s in ("train", "validation", "test")}
    return labels, examples, {s: np.array([place[e.labels[0]] for e in rows]) for s, rows in examples.items()}


def classical(data: Artifact, model: Artifact, store: Store) -> dict[str, dict[str, Any]]:
    """The baselines of the verdict: TF-IDF and frozen features, each with a logistic regression."""
    from luthier.adapt.labelled import open_label_model

    labels, examples, right = splits(data)
    parts = [baselines.Split(examples[s], right[s]) for s in examples]
    found = {}
    default = LabelEvaluate()
    cpu = common.cpu_seconds()
    fit = baselines.tfidf(*parts, len(labels), default.tfidf_c)
    found["tfidf"] = _score(fit, right["test"], common.cpu_seconds() - cpu)
    cpu = common.cpu_seconds()
    network = open_label_model(model, labels)
    values = [predict.features(network, network.rows(examples[s], targets=False), cache=store.cache("features"))
              for s in examples]
    fit = baselines.on_features(values, *parts, len(labels), default.features_c)
    found["features"] = _score(fit, right["test"], common.cpu_seconds() - cpu)
    return found


def _score(fit: Any, right: np.ndarray, cpu: float) -> dict[str, Any]:
    hits = fit.test.argmax(1) == right
    return {"accuracy": float(hits.mean()), "n": len(right), "cpu_s": round(cpu, 1), "hits": hits.tolist()}


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval (Student's t) over seeds."""
    from luthier.evaluate.compare import student_quantile

    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean, "n": len(values)}
    half = student_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def paired(hits: Sequence[bool], against: Sequence[bool]) -> dict[str, float]:
    """Difference in accuracy on the same test rows, with a paired bootstrap interval."""
    return common.mean_difference([float(h) for h in against], [float(h) for h in hits])


def bare(found: dict[str, Any]) -> dict[str, Any]:
    """Without the answers row by row, which only comparisons need."""
    return {name: value for name, value in found.items() if name != "hits"}


def scratch(name: str) -> Path:
    """Where a benchmark keeps its store; a second run finds finished parts there."""
    folder = common.HERE / "work" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
