"""Jobs on small subsets of the shared data, for benchmarks that need to choose their rows."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import label_common
import numpy as np

from luthier.adapt.labelled import open_label_model
from luthier.adapt.network import LabelModel
from luthier.adapt.predict import logits as predict_logits
from luthier.adapt.predict import probabilities
from luthier.evaluate.labels.calibrate import calibration_error, fit_temperature
from luthier.store import Artifact, Store
from luthier.train.base import Train
from luthier.train.labelled.base import Job
from luthier.train.labelled.pool import rows_for
from luthier.types import Example, Origin


def banking(labels: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and test rows of the first intents by name, in an order that depends on their content alone."""
    found = []
    for part in ("train", "test"):
        with (common.data_folder() / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
        names = sorted({row["label"] for row in rows})[:labels]
        found.append(common.fixed_order([row for row in rows if row["label"] in names], "text"))
    return found[0], found[1]


def cuad() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Contract sentences of 14 clause types."""
    train, test = (common.read_rows(common.data_folder() / "cuad_clauses" / f"{part}.jsonl")
                   for part in ("train", "test"))
    return common.fixed_order(train, "text"), common.fixed_order(test, "text")


def examples(rows: Sequence[dict[str, Any]], split: str) -> list[Example]:
    return [Example(id=f"{split}-{at}", input=row["text"], target=None, labels=(row["label"],),
                    split=split,  # type: ignore[arg-type]
                    origin=Origin(maker="human", step="rows", where=f"{split}:{at + 1}"))
            for at, row in enumerate(rows)]


def draw(rows: Sequence[dict[str, Any]], each: Sequence[int], seed: int) -> list[list[dict[str, Any]]]:
    """Disjoint parts with so many rows of every label, drawn by the seed."""
    order = np.random.default_rng([seed, 77]).permutation(len(rows))
    by_label: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for at in order:
        by_label[rows[at]["label"]].append(rows[at])
    parts, start = [], 0
    for count in each:
        parts.append([row for label in sorted(by_label) for row in by_label[label][start:start + count]])
        start += count
    return parts


def job(folder: Path, model: Artifact, store: Store, labels: Sequence[str], train: Sequence[Example],
        validation: Sequence[Example], spec: Train, *, seed: int, warm: bool = True,
        fresh: bool = True) -> Job:
    """A job in `folder`, which begins empty unless `fresh` is False (finished folds are then taken from there)."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return Job(open=lambda at: open_label_model(model, labels, seed=at), train=train, validation=validation, spec=spec,
               folder=folder, cache=store.cache("features"), root=folder, progress=label_common.QUIET, seed=seed,
               look_for_leaks=False, warm=warm)


def score(model: LabelModel, test: Sequence[Example], job: Job | None = None) -> dict[str, float]:
    """Accuracy, log loss and calibration error (15 even bins) on test rows; the job may have their features. Where it
    has validation rows, also the last two after a temperature was fitted on them, as `luthier evaluate` does."""
    rows = model.rows(test) if job is None else rows_for(job, model, test)
    values, right = predict_logits(model, rows), np.array([row.target for row in rows])
    hits = values.argmax(1) == right
    found = {"accuracy": float(hits.mean())}
    temperatures = {"": 1.0}
    if job is not None and job.validation:
        held = rows_for(job, model, job.validation)
        temperatures["_after_temperature"] = fit_temperature(predict_logits(model, held),
                                                             np.array([row.target for row in held]))
    for name, temperature in temperatures.items():
        chances = probabilities(values, temperature=temperature)
        loss = -np.log(np.clip(chances[np.arange(len(right)), right], 1e-12, 1)).mean()
        found |= {f"log_loss{name}": float(loss),
                  f"calibration_error{name}": float(calibration_error(chances.max(1), hits))}
    return found


def mean_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def over_seeds(found: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: label_common.over_seeds([one[name] for one in found]) for name in found[0]}
