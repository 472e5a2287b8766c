"""A progressive network through the stages: trained, trained on from an earlier run, evaluated on the test rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from label_kit import encoder, prepared
from test_label_sequence import TASKS, rows

from luthier.adapt.base import Adapt, adapt
from luthier.evaluate.base import Evaluate, evaluate
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.progressive import Progressive


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The first run, the one that begins from it, and the evaluation of the second."""
    folder = tmp_path_factory.mktemp("columns")
    store, task = Store(folder / "store"), Task(type="classify", metric="accuracy")
    model = adapt(task, Adapt(model=str(encoder(folder / "model"))), store=store, root=folder)
    every = rows()
    spec = Train(strategy=Progressive(by="topic", reads=4), plan=HeadOnly(), epochs=2, verify_resume=False)
    some = prepared(store, task, [row for row in every if row.groups["topic"] != "login"])
    first = train(model, some, spec, store=store, root=folder)
    data = prepared(store, task, every)
    second = train(model, data, spec, store=store, root=folder, start=first)
    wanted = Evaluate(labels=LabelEvaluate(systems=("majority", "tuned"), latency_rows=0), bootstrap_samples=200)
    report = evaluate(data=data, index=None, model=model, run=second, task=task, spec=wanted, store=store, root=folder)
    return first, second, json.loads((report.path / "report.json").read_text("utf-8"))


def test_an_earlier_runs_columns_stay_and_the_new_task_gets_one(made):
    first, second, _ = made
    before, after = (open_tuned_labels(run) for run in (first, second))
    assert after.module.names == (*before.module.names, "login") and set(before.module.names) == {"refund", "parcel"}
    state = after.module.state_dict()
    moved = [name for name, value in before.module.state_dict().items()
             if not name.startswith("router.") and not np.array_equal(value, state[name])]
    assert not moved
    assert second.summary["progressive"]["columns"] == [*after.module.names]


def test_the_report_measures_both_ways_of_asking_and_nothing_was_forgotten(made):
    _, second, report = made
    told = report["sequence"]
    assert sorted(told["tasks"]) == sorted(TASKS) and told["heads"] == "columns"
    named, routed = (np.array(told["modes"][mode]["matrix"], dtype=float)
                     for mode in ("task_incremental", "class_incremental"))
    assert told["modes"]["task_incremental"]["figures"]["backward_transfer"]["value"] == 0
    assert (named[-1] == named.diagonal()).all() and routed[-1].mean() <= named[-1].mean() + 1e-9
    router = json.loads((second.path / "router.json").read_text("utf-8"))
    assert router["n"] == 36 and sorted(router["columns"]) == sorted(TASKS)
