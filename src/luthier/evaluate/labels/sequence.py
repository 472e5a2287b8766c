"""What a model kept that learned tasks in sequence: both matrices on the test rows, with figures and intervals.

The run says what the model of every stage answers to the test rows (`stages.safetensors`, written by the strategy
`sequence` without their labels); here the labels are added.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from luthier.evaluate import forgetting
from luthier.evaluate.compare import units
from luthier.evaluate.labels.bench import Bench
from luthier.evaluate.labels.intervals import Estimate, Replicates
from luthier.train.labelled.matrix import answers_by_mode, table

STAGES, ANSWERS, ORDERS = "stages.json", "stages.safetensors", "orders.json"


def sequence(bench: Bench) -> dict[str, Any] | None:
    """The section of the report; None where the run was no sequence, or where none of its test rows is measured."""
    from safetensors.numpy import load_file

    if bench.run is None or not (bench.run.path / STAGES).is_file():
        return None
    told = json.loads((bench.run.path / STAGES).read_text("utf-8"))
    place = {id: at for at, id in enumerate(told["ids"]["test"])}
    rows = [(example, task) for example in bench.test
            if example.id in place and (task := _task_of(example, told)) is not None]
    if not rows:
        return None
    examples, tasks = [example for example, _ in rows], np.array([task for _, task in rows])
    answers = load_file(bench.run.path / ANSWERS)
    mine = [place[example.id] for example in examples]
    named = answers["test_named"][:, mine] if "test_named" in answers else None
    targets = np.array([told["outputs"].index((example.labels or ("",))[0]) for example in examples])
    labels_of = np.array([np.isin(told["outputs"], told["labels"][name]) for name in told["tasks"]])
    draws = Replicates(units(examples).ids, samples=bench.spec.bootstrap_samples, seed=bench.spec.seed)
    modes = {}
    for mode, right in answers_by_mode(answers["test"][:, mine], targets, tasks, labels_of, named).items():
        start, stages = (right[0], right[1:]) if told["has_start"] else (None, right)
        modes[mode] = _mode(forgetting.Rows(stages, tasks, start), draws)
    orders = bench.run.path / ORDERS
    return {"tasks": told["tasks"], "labels": told["labels"], "heads": told["heads"], "order": told["order"],
            "n": [int((tasks == at).sum()) for at in range(len(told["tasks"]))], "modes": modes,
            "orders": json.loads(orders.read_text("utf-8")) if orders.is_file() else None}


def _task_of(example: Any, told: dict[str, Any]) -> int | None:
    """Place of a row's task among those learned."""
    label = (example.labels or ("",))[0]
    if label not in told["outputs"]:
        return None
    name = example.groups.get(told["by"], "") if told["by"] else \
        next((name for name in told["tasks"] if label in told["labels"][name]), "")
    return told["tasks"].index(name) if name in told["tasks"] else None


def _mode(rows: forgetting.Rows, draws: Replicates) -> dict[str, Any]:
    matrix, start = forgetting.matrix_draws(rows, draws)
    last, learned = len(matrix.value) - 1, matrix.value.diagonal()
    changes = []
    for at in range(len(matrix.value)):
        counts = int((rows.tasks == at).sum())
        value, drawn = matrix.value[:, at], matrix.draws[:, :, at]
        change = Estimate(float(value[last] - value[at]), drawn[:, last] - drawn[:, at], counts)
        now = Estimate(float(value[last]), drawn[:, last], counts)
        changes.append({"learned": _plain(learned[at]), "now": draws.measured(now).dump() if counts else None,
                        "change": draws.measured(change).dump() if counts and at < last else None})
    return {"matrix": table(matrix.value), "start": None if start is None else table(start.value[None])[0],
            "figures": {name: one.dump() for name, one in forgetting.over_rows(rows, draws).items()},
            "by_task": changes}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
