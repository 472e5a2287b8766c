"""What the benchmarks of forgetting share: methods, one run of a sequence, strengths chosen on an order of their own,
and figures over seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import label_common
import label_jobs
import numpy as np
from common import cpu_seconds, machine, save
from safetensors.numpy import load_file

from luthier.adapt.labelled import open_label_model
from luthier.adapt.predict import logits as predict_logits
from luthier.evaluate import forgetting
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.base import REGULARIZERS, STRATEGIES, Train
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.matrix import MODES, answers_by_mode, matrix_of, table
from luthier.train.replay import Replay
from luthier.types import Example


@dataclass(frozen=True)
class Method:
    """One way to learn the tasks."""

    strategy: str = "sequence"
    """`joint` learns all tasks at once."""
    heads: str = "shared"
    """own: the loss is masked to the task's classes."""
    regularizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = ()
    """What is tried on the validation order."""
    like: str = ""
    """The method whose chosen strength is taken."""
    replay: bool = False
    strategy_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def available(self) -> bool:
        return (self.strategy == "joint" or self.strategy in STRATEGIES.kinds()) and (
            not self.regularizer or self.regularizer in REGULARIZERS.kinds())


@dataclass(frozen=True)
class Setup:
    """What is learned."""

    model: Artifact
    store: Store
    folder: Path
    tasks: Mapping[str, Sequence[str]]
    """Labels by task."""
    spec: Train
    store_share: float = 0.05
    """Rows of the replay store, as a share of all train rows."""
    replay_share: float = 0.25
    """Share of every update that is replayed."""

    @property
    def labels(self) -> list[str]:
        return sorted(label for names in self.tasks.values() for label in names)


Parts = tuple[list[Example], list[Example], list[Example]]
"""Train, validation and test rows."""


def in_tasks(rows: Sequence[dict[str, Any]], split: str, tasks: Mapping[str, Sequence[str]]) -> list[Example]:
    owner = {label: name for name, labels in tasks.items() for label in labels}
    return [replace(example, groups={"task": owner[(example.labels or ("",))[0]]})
            for example in label_jobs.examples(rows, split)]


def learn(setup: Setup, method: Method, parts: Parts, order: Sequence[str], *, strength: float | None, seed: int
          ) -> dict[str, Any]:
    """R on the validation and test rows in both modes; for joint training its last row alone."""
    train, validation, test = parts
    spec, cpu = setup.spec, cpu_seconds()
    if method.regularizer:
        given = {"kind": method.regularizer, **method.options, **({} if strength is None else {"strength": strength})}
        spec = spec.but(regularizers=(REGULARIZERS.parse(given),))
    if method.replay:
        spec = spec.but(keep=Reservoir(size=max(1, round(len(train) * setup.store_share))),
                        replay=Replay(source="past", share=setup.replay_share))
    job = label_jobs.job(setup.folder / "fit", setup.model, setup.store, setup.labels, train, validation, spec,
                         seed=seed)
    job = job.but(test=test, open=lambda at: open_label_model(setup.model, setup.labels, seed=at,
                                                              max_length=spec.max_length))
    places = {label: at for at, label in enumerate(setup.labels)}
    labels_of = np.array([np.isin(setup.labels, [*setup.tasks[name]]) for name in order])
    found: dict[str, Any] = {}
    if method.strategy == "joint":
        masked = {example.id: example.groups["task"] for example in [*train, *validation]}
        model = fit_once(job.but(parts=setup.tasks, part_of=masked) if method.heads == "own" else job).model
        answers = {name: predict_logits(model, model.rows(rows, targets=False))[None]
                   for name, rows in (("validation", validation), ("test", test))}
    else:
        options = {**method.strategy_options, **({"heads": method.heads} if method.strategy == "sequence" else {})}
        strategy = STRATEGIES.parse({"kind": method.strategy, "order": [*order], "record": len(test) + len(validation),
                                     **options})
        strategy.run(fit_once, job.but(spec=spec.but(strategy=strategy)))  # type: ignore[attr-defined]
        answers = load_file(job.folder / "stages.safetensors")
    for name, rows in (("validation", validation), ("test", test)):
        targets = np.array([places[(row.labels or ("",))[0]] for row in rows])
        owner = np.array([order.index(row.groups["task"]) for row in rows])
        found[name] = {mode: table(matrix_of(right, owner, len(order))) for mode, right in answers_by_mode(
            answers[name], targets, owner, labels_of, answers.get(f"{name}_named")).items()}
    shutil.rmtree(setup.folder / "fit", ignore_errors=True)
    found["cpu_s"] = round(cpu_seconds() - cpu, 1)
    print(seed, method.regularizer or method.strategy, method.heads, {mode: last(found, mode) for mode in MODES},
          f"{found['cpu_s']} CPU-s", flush=True)
    return found


def last(found: Mapping[str, Any], mode: str, *, rows: str = "test") -> float:
    """Average accuracy after the last task."""
    return float(np.mean(found[rows][mode][-1]))


def choose(setup: Setup, methods: Mapping[str, Method], parts: Parts, order: Sequence[str], *, mode: str, seed: int
           ) -> dict[str, Any]:
    """For every method with strengths, the one with the best average accuracy on validation rows, in an order and on a
    draw of rows that are not reported."""
    found: dict[str, Any] = {}
    for name, method in methods.items():
        if not method.strengths or not method.available:
            continue
        tried = {value: last(learn(setup, method, parts, order, strength=value, seed=seed), mode, rows="validation")
                 for value in method.strengths}
        found[name] = {"tried": tried, "chosen": max(tried, key=lambda value: tried[value])}
        print("chosen", name, found[name], flush=True)
    return found


def strength_of(name: str, method: Method, chosen: Mapping[str, Any], given: Mapping[str, float]) -> float | None:
    """What was said on the command line, else what was chosen, else the method's default."""
    source = method.like or name
    return given.get(source, chosen.get(source, {}).get("chosen"))


def parse_strengths(text: str) -> dict[str, float]:
    """`EWC=1000,LwF=1` as a mapping."""
    return {name.strip(): float(value) for name, _, value in (part.partition("=") for part in text.split(",") if part)}


def figures(runs: Mapping[str, Sequence[dict[str, Any]]], *, naive: str, joint: str) -> dict[str, Any]:
    """Every method's figures over seeds (or seeds and orders), and the share that it recovers between naive and joint
    training. `runs`: one a seed, in the same order for every method."""
    found: dict[str, Any] = {}
    for name, each in runs.items():
        found[name] = {"cpu_s": float(np.mean([one["cpu_s"] for one in each]))}
        for mode in MODES:
            scores = {which: [last(one, mode) for one in runs[which]] for which in {name, naive, joint} & runs.keys()}
            if name == joint:
                told = {"average_accuracy": forgetting.mean_over_seeds(scores[name])}
            else:
                told = forgetting.over_seeds([forgetting.OneRun(np.array(one["test"][mode], dtype=float))
                                              for one in each])
                even = len({len(values) for values in scores.values()}) == 1 and len(scores) > 1
                share = forgetting.recovered_over_seeds(scores[name], scores[naive], scores[joint]) \
                    if even and {naive, joint} <= scores.keys() else None
                told |= {} if share is None else {"recovered_share": share}
            found[name][mode] = {figure: one.dump() for figure, one in told.items()}
    return found


def report(name: str, facts: Mapping[str, Any], runs: Mapping[str, Sequence[dict[str, Any]]], *, naive: str, joint: str,
           skipped: Sequence[str], began: float) -> None:
    """Save what is known so far, and print one line a method."""
    told = figures(runs, naive=naive, joint=joint)
    path = save(name, {**facts, "skipped": [*skipped], "machine": machine(), "cpu_s": round(cpu_seconds() - began, 1),
                       "figures": told, "runs": {method: [dict(one) for one in each] for method, each in runs.items()}})
    for method, one in told.items():
        shown = [f"{mode.partition('_')[0]} {one[mode]['average_accuracy']['value']:.3f}"
                 + (f" forgets {one[mode]['forgetting']['value']:.3f}" if "forgetting" in one[mode] else "")
                 for mode in MODES]
        print(f"{method:32} {'; '.join(shown)}; {one['cpu_s']:.0f} CPU-s", flush=True)
    print(json.dumps({"saved": str(path)}), flush=True)


def base_model(name: str) -> tuple[Artifact, Store, Path]:
    """The starter encoder, adapted once, its store, and the folder of a benchmark."""
    folder = label_common.scratch(name)
    store = Store(folder / "store")
    return label_common.base(store, Task(type="classify", metric="accuracy")), store, folder
