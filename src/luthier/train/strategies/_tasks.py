"""The tasks that a sequence learns one after another: which row and which label belongs to which, and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.adapt.network import LabelModel
from luthier.errors import DataError, SpecError
from luthier.train.labelled.base import Job
from luthier.train.labelled.pool import features_of
from luthier.train.labelled.warm import STRENGTHS, logistic_regression
from luthier.types import Example


@dataclass(frozen=True)
class Tasks:
    """A division of a job's rows."""

    names: tuple[str, ...]
    """In the order in which they appear among the train rows, or in which they are learned."""
    labels: Mapping[str, tuple[str, ...]]
    """Each task's labels, in the order of the data's."""
    by: str = ""
    """The group column that names a row's task; empty where its label does."""

    def of(self, example: Example) -> str:
        """A row's task; empty where it belongs to none."""
        if self.by:
            name = example.groups.get(self.by, "")
            return name if name in self.labels else ""
        mine = (example.labels or ("",))[0]
        return next((name for name in self.names if mine in self.labels[name]), "")

    def rows(self, examples: Sequence[Example], name: str) -> list[Example]:
        return [example for example in examples if self.of(example) == name]

    def ordered(self, names: Sequence[str]) -> Tasks:
        return Tasks(tuple(names), self.labels, self.by)


def divide_by_group(job: Job, by: str, outputs: Sequence[str] = ()) -> Tasks:
    """Tasks by a column of the rows. DataError where train rows lack it, or a held-out row has a task of its own.
    `outputs` are the model's labels, where it was opened already."""
    bare = next((example for example in job.train if not example.groups.get(by)), None)
    if bare is not None:
        known = sorted({name for example in job.train for name in example.groups})
        hint = f"the rows have: {', '.join(known)}" if known else \
            "name the column under `groups` of the maker that reads the rows"
        raise DataError(f"train.strategy: the sequence divides rows by the column '{by}', and {bare.origin.where} has "
                        f"no value there; {hint}, or give `labels` to divide by label")
    found: dict[str, dict[str, None]] = {}
    for example in job.train:
        found.setdefault(example.groups[by], {}).update(dict.fromkeys(example.labels or ()))
    place = {label: at for at, label in enumerate(outputs or job.open(job.seed).labels)}
    tasks = Tasks(tuple(found), {name: tuple(sorted(labels, key=place.__getitem__)) for name, labels in found.items()},
                  by)
    for example in job.validation:
        if not tasks.of(example):
            raise DataError(f"train.strategy: the validation row {example.origin.where} has the task "
                            f"'{example.groups.get(by, '')}' ({by}), which no train row has")
    return tasks


def divide_by_label(job: Job, labels: Mapping[str, Sequence[str]], outputs: Sequence[str] = ()) -> Tasks:
    """Tasks by label. SpecError for a label in two tasks or in none; DataError for a task without train rows. `outputs`
    as in `divide_by_group`."""
    owner: dict[str, str] = {}
    for name, names in labels.items():
        for label in names:
            if label in owner:
                raise SpecError(f"train.strategy.labels: '{label}' stands in '{owner[label]}' and in '{name}'; a label "
                                "belongs to one task (divide by a column where tasks share labels)")
            owner[label] = name
    known = outputs or job.open(job.seed).labels
    missing = [label for label in known if label not in owner]
    unknown = [label for label in owner if label not in known]
    if missing or unknown:
        raise SpecError("train.strategy.labels: " + (
            f"{len(missing)} labels of the data stand in no task, such as '{missing[0]}'" if missing else
            f"'{unknown[0]}' is no label of the data, which has {', '.join(known[:8])}"))
    tasks = Tasks(tuple(labels), {name: tuple(label for label in known if owner[label] == name) for name in labels})
    appear = [name for name in dict.fromkeys(tasks.of(example) for example in job.train) if name]
    if absent := [name for name in tasks.names if name not in appear]:
        raise DataError(f"train.strategy: no train row belongs to the task '{absent[0]}'")
    return tasks.ordered(appear)


def given_order(tasks: Tasks, names: Sequence[str]) -> tuple[str, ...]:
    """The order that the user wrote; SpecError where it is not one of these tasks."""
    if sorted(names) != sorted(tasks.names):
        wrong = [name for name in names if name not in tasks.names] or \
            [name for name in tasks.names if name not in names] or [*names]
        raise SpecError(f"train.strategy.order names each task once, and '{wrong[0]}' is the first that does not fit; "
                        f"the tasks are: {', '.join(tasks.names)}")
    return tuple(names)


def by_similarity(tasks: Tasks, job: Job, model: LabelModel) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Begin with the task nearest to all others, and go on with the one nearest to the last: by cosine between the mean
    features of the untouched base model. Also returns the cosines [tasks, tasks], tasks as they appear."""
    features = features_of(job, model, model.rows(job.train, targets=False))
    owner = np.array([tasks.names.index(tasks.of(example)) for example in job.train])
    centres = np.stack([features[owner == at].mean(0) for at in range(len(tasks.names))])
    centres = centres - features.mean(0)  # what all texts share says nothing about tasks
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    near = centres @ centres.T
    order = nearest_chain(near)
    return tuple(tasks.names[at] for at in order), {"cosine": np.round(near, 4).tolist(), "tasks": [*tasks.names]}


def nearest_chain(near: np.ndarray) -> list[int]:
    """Places in the order of a greedy chain over a symmetric similarity [n, n]; ties go to the lower place."""
    near = np.round(near, 9)
    left = set(range(len(near)))
    order = [int(np.argmax(near.sum(1)))]
    left.remove(order[0])
    while left:
        order.append(min(left, key=lambda at: (-near[order[-1], at], at)))
        left.remove(order[-1])
    return order


def by_difficulty(tasks: Tasks, job: Job, model: LabelModel) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Easiest first: by the accuracy on a task's validation rows of a logistic regression among its classes, on frozen
    features (the best of three strengths). Curriculum: Bengio et al. 2009. Also returns the accuracies. DataError for a
    task without validation rows."""
    rows = [*job.train, *job.validation]
    found = dict(zip((example.id for example in rows), features_of(job, model, model.rows(rows, targets=False))))
    scores = {}
    for name in tasks.names:
        train, held = tasks.rows(job.train, name), tasks.rows(job.validation, name)
        if not held:
            raise DataError(f"train.strategy: order: curriculum asks validation rows how hard a task is, and the task "
                            f"'{name}' has none; add some, or write the order down")
        place = {label: at for at, label in enumerate(tasks.labels[name])}
        x, y = (np.stack([found[example.id] for example in train]),
                np.array([place[(example.labels or ("",))[0]] for example in train]))
        weights = np.array([example.weight for example in train])
        right = np.array([place.get((example.labels or ("",))[0], -1) for example in held])
        probe = np.stack([found[example.id] for example in held])
        best = 0.0
        for strength in STRENGTHS:
            weight, bias = logistic_regression(x, y, weights, num_outputs=len(place), multi_label=False,
                                               strength=strength)
            best = max(best, float(((probe @ weight.T + bias).argmax(1) == right).mean()))
        scores[name] = best
    order = sorted(tasks.names, key=lambda name: (-scores[name], tasks.names.index(name)))
    return tuple(order), {"accuracy": {name: round(scores[name], 4) for name in order}}
