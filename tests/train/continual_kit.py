"""Two small tasks one after the other, on a tiny random BERT: two classes each, and texts that hold traces of both."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fit_kit import Bench, example, rows

from luthier.adapt import predict
from luthier.adapt.grow import grown
from luthier.adapt.labelled import open_label_model
from luthier.adapt.network import LabelModel
from luthier.train.labelled.base import Fitted, Job
from luthier.train.labelled.fit import fit_once
from luthier.train.past import Past
from luthier.types import Example

OLD, NEW = ("ant", "bee"), ("cat", "dog")
BOTH = (*OLD, *NEW)
TASKS = {"one": ("ant", "bee"), "two": ("cat", "dog"), "three": ("elk", "fox")}
LABELS = tuple(label for labels in TASKS.values() for label in labels)


def in_groups(examples: Sequence[Example]) -> list[Example]:
    """The rows with the group `task` that their label belongs to."""
    owner = {label: name for name, labels in TASKS.items() for label in labels}
    return [replace(one, groups={"task": owner[(one.labels or ("",))[0]]}) for one in examples]


def tasks_job(bench: Bench, name: str, strategy: Any, **spec: Any) -> Job:
    """A job over three tasks of two labels each, with test rows."""
    train = in_groups(rows(72, labels=LABELS))
    validation = in_groups(rows(36, labels=LABELS, first=500, split="validation"))
    return bench.job(name, train, validation, **{**spec, "strategy": strategy}).but(
        test=in_groups(rows(24, labels=LABELS, first=900, split="test")))


def texts(num: int, labels: Sequence[str], *, first: int, split: str = "train", trace: Sequence[str] = ()
          ) -> list[Example]:
    """Texts in which the first letter of the label is common, and that of one of `trace` less so."""
    rng = np.random.default_rng(first)
    found = []
    for at in range(num):
        label = labels[at % len(labels)]
        letters = rng.choice([*"efghijklmnopqrstuvwxyz"], size=int(rng.integers(10, 20)))
        if trace:
            letters[rng.random(len(letters)) < 0.4] = rng.choice([name[0] for name in trace])
        letters[rng.random(len(letters)) < 0.45] = label[0]
        found.append(example(first + at, label, "".join(letters), split=split))
    return found


def frozen(model: LabelModel) -> LabelModel:
    """The same weights in a network of its own."""
    processor = model.processor
    return model.but(module=copy.deepcopy(model.module, {id(processor): processor}).requires_grad_(False).eval())


class Sequence2:
    """A model that has learned the old classes, and the jobs that teach it the new ones."""

    def __init__(self, folder: Path, *, keep: Any = None, **spec: Any):
        self.bench = Bench(folder, labels=BOTH, dropout=0.0)
        self.old = texts(48, OLD, first=0)
        self.old_held = texts(40, OLD, first=5000, split="test")
        self.new = texts(48, NEW, first=2000, trace=OLD)
        self.new_held = texts(24, NEW, first=7000, split="validation", trace=OLD)
        self.settings = {"epochs": 9, "batch_size": 8, "learning_rate": 2e-3, "verify_resume": False, "patience": 0,
                         "validate_every": 16, **spec}
        job = self.bench.job("old", self.old, texts(16, OLD, first=6000, split="validation"), keep=keep,
                             **self.settings)
        self.before: Fitted = fit_once(job.but(open=lambda seed: open_label_model(self.bench.adapted, OLD, seed=seed)))
        memory = self.before.memory or {}
        self.past = Past(open=lambda: frozen(self.before.model), labels=OLD, rows=memory.get("rows", ()),
                         logits=memory.get("logits") or {}, kept=memory.get("kept") or {},
                         facts=memory.get("facts") or {})

    def job(self, name: str, **spec: Any) -> Job:
        """The second training, in a folder of its own."""
        job = self.bench.job(name, self.new, self.new_held, **{**self.settings, **spec})
        replay = list(self.past.rows) if job.spec.replay else []
        return job.but(open=self.opened, past=self.past, replay=replay, warm=False, check_labels=False)

    def opened(self, seed: int) -> LabelModel:
        return grown(frozen(self.before.model), BOTH, seed=seed)


def accuracy(model: LabelModel, rows: Sequence[Example], among: Sequence[str] = BOTH) -> float:
    """Share of right answers, among some of the classes."""
    logits = predict.logits(model, model.rows(rows, targets=False))
    places = [model.labels.index(name) for name in among]
    said = [among[at] for at in logits[:, places].argmax(-1)]
    return float(np.mean([name == row.labels[0] for name, row in zip(said, rows)]))  # type: ignore[index]
