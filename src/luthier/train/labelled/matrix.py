"""What a model that learns tasks one after another can do after each of them: R[i, j], the share of right answers on
task j's rows after learning task i (Lopez-Paz & Ranzato 2017, section 2).

Two readings of the same logits. Class-incremental: the answer is the likeliest of all classes that the model has.
Task-incremental: the caller names the task, and the answer is the likeliest of its classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MODES = ("class_incremental", "task_incremental")


def right_answers(logits: np.ndarray, targets: np.ndarray, open_to: np.ndarray | None = None) -> np.ndarray:
    """1 where the likeliest class is right, 0 where it is not, NaN where the model has none of the classes asked about.

    logits [stages, rows, classes], NaN at classes that a stage's model does not have; targets int [rows]; `open_to`
    bool [rows, classes] are the classes asked about, None for all. float64 [stages, rows]
    """
    known = ~np.isnan(logits)
    if open_to is not None:
        known = known & open_to[None]
    said = np.where(known, logits, -np.inf).argmax(-1)
    return np.where(known.any(-1), said == targets[None], np.nan)


def answers_by_mode(logits: np.ndarray, targets: np.ndarray, tasks: np.ndarray, labels_of: np.ndarray,
                    named: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`right_answers` in both modes. tasks int [rows]: each row's task; labels_of bool [tasks, classes]; `named` are
    the logits of a model that answers otherwise when it is told the task (a progressive network)."""
    return {"class_incremental": right_answers(logits, targets),
            "task_incremental": right_answers(logits if named is None else named, targets, labels_of[tasks])}


def matrix_of(right: np.ndarray, tasks: np.ndarray, num_tasks: int) -> np.ndarray:
    """Means of right answers over each task's rows: float64 [stages, tasks], NaN where a task has no row or a stage's
    model none of its classes. right as from `right_answers`, tasks int [rows]."""
    found = np.full((len(right), num_tasks), np.nan)
    for task in range(num_tasks):
        mine = right[:, tasks == task]
        if mine.shape[1]:
            found[:, task] = mine.mean(1)
    return found


def table(values: np.ndarray) -> list[list[float | None]]:
    """A matrix as JSON holds it: None for NaN."""
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in values]


def told(logits: np.ndarray, targets: np.ndarray, tasks: np.ndarray, *, names: Sequence[str],
         labels: Mapping[str, Sequence[str]], outputs: Sequence[str], has_start: bool,
         named: np.ndarray | None = None) -> dict[str, Any]:
    """What `matrix.json` says: R by mode, the rows behind each column, and the start where the first stage of `logits`
    is the model before the first task; `named` as in `answers_by_mode`."""
    labels_of = np.array([np.isin(outputs, [*labels[name]]) for name in names])
    found: dict[str, Any] = {
        "tasks": [*names], "labels": {name: [*labels[name]] for name in names}, "measure": "accuracy",
        "n": [int((tasks == at).sum()) for at in range(len(names))], "matrix": {}, "start": None}
    starts = {}
    for mode, right in answers_by_mode(logits, targets, tasks, labels_of, named).items():
        values = table(matrix_of(right, tasks, len(names)))
        if has_start:
            starts[mode], values = values[0], values[1:]
        found["matrix"][mode] = values
    found["start"] = starts or None
    return found
