"""A small labelled job on a tiny random BERT, for tests of the labelled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.adapt.base import Adapt, adapt
from luthier.adapt.head import Head
from luthier.adapt.labelled import open_label_model
from luthier.progress import Silent
from luthier.store import Cache, Store
from luthier.task import Task
from luthier.testing import tiny_encoder
from luthier.train.base import Train
from luthier.train.labelled.base import Job
from luthier.types import Example, Origin

LABELS = ("ant", "bee", "cat")


class Bench:
    """A tiny base model and what a job needs."""

    def __init__(self, folder: Path, *, task: Task | None = None, head: Head | None = None, layers: int = 2,
                 dropout: float = 0.1, labels: Sequence[str] = LABELS):
        self.folder, self.labels = folder, tuple(labels)
        tiny_encoder(folder / "model", layers=layers, dropout=dropout)
        self.task = task or Task(type="classify")
        self.adapted = adapt(self.task, Adapt(model="./model", head=head or Head()), store=Store(folder / "store"),
                             root=folder)

    def open(self, seed: int) -> Any:
        return open_label_model(self.adapted, self.labels, seed=seed)

    def job(self, name: str, train: Sequence[Example], validation: Sequence[Example], *, watch: Any = None,
            seed: int = 0, **spec: Any) -> Job:
        settings = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, **spec}
        return Job(open=self.open, train=train, validation=validation, spec=Train(**settings),
                   folder=self.folder / name, cache=Cache(self.folder / "cache"), root=self.folder, progress=Silent(),
                   watch=watch, seed=seed)


def example(at: int, label: str | tuple[str, ...] | None, text: str, *, split: str = "train", **changes: Any
            ) -> Example:
    labels = (label,) if isinstance(label, str) else label
    return Example(id=f"e{at}", input=text, target=None, labels=labels, split=split,  # type: ignore[arg-type]
                   origin=Origin(maker="human", step="rows", where=f"data.csv:{at + 2}"), **changes)


def rows(num: int, *, seed: int = 0, first: int = 0, split: str = "train", labels: Sequence[str] = LABELS,
         size: int | None = None, noise: bool = False) -> list[Example]:
    """Texts of random letters in which the label's first letter is common (`noise`: the label is drawn at random)."""
    rng = np.random.default_rng([seed, first])
    found = []
    for at in range(num):
        label = labels[at % len(labels)]
        letters = rng.choice([*"defghijklmnopqrstuvwxyz"], size=size or int(rng.integers(8, 24)))
        if not noise:
            letters[rng.random(len(letters)) < 0.6] = label[0]
        said = str(rng.choice(labels)) if noise else label
        found.append(example(first + at, said, "".join(letters), split=split))
    return found


def weights(fitted: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fitted.model.module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """Stands for a kill."""


def kill_at(step: int) -> Callable[[Any], None]:
    """A watcher that ends the run after an update, before its checkpoint."""
    def watch(done: Any) -> None:
        if done.step == step:
            raise Killed

    return watch
