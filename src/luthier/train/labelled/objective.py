"""What is minimised for a labelled task: the loss on labels, distillation, and what regularizers add to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import LabelModel
from luthier.train.labelled.base import Job
from luthier.train.labelled.warm import arrays

SCALE = 20.0
"""Cosines are multiplied by this before the softmax over documents (Reimers & Gurevych 2019; sentence-transformers)."""


def columns_of(model: LabelModel, names: Sequence[str]) -> np.ndarray:
    """Places of labels among the model's outputs, ascending. int64 [names]"""
    places = {label: at for at, label in enumerate(model.labels)}
    return np.array(sorted(places[name] for name in names if name in places), dtype=np.int64)


def objective_of(model: LabelModel, job: Job, rows: Sequence[Row]) -> Callable[[Any, float], torch.Tensor]:
    """(batch, denominator) → weighted sum of the losses / denominator. Its `take_taught()` (not for embed) tells how
    much of what it gave since it was last asked came from regularizers' teachers."""
    network, task = model.module, model.task
    if task.type == "embed":
        def contrast(batch: Any, denominator: float) -> torch.Tensor:
            queries, documents = network(batch.inputs["query"]), network(batch.inputs["documents"])
            scores = (SCALE * queries @ documents.T).masked_fill(batch.inputs["also_right"], float("-inf"))
            each = torch.nn.functional.cross_entropy(scores, batch.targets, reduction="none")
            return (each * batch.weights).sum() / denominator

        return contrast
    if task.type == "tag":
        counts = np.bincount(np.concatenate([row.target[row.target >= 0] for row in rows]),
                             minlength=len(model.labels))
    elif task.multi_label:
        counts = np.stack([row.target for row in rows]).sum(0)
    else:
        counts = np.bincount(arrays(rows, multi_label=False)[0], minlength=len(model.labels))
    loss = job.spec.loss.bind(counts, multi_label=task.multi_label)
    parts = {name: torch.from_numpy(columns_of(model, names)) for name, names in job.parts.items()}
    part_losses = {name: job.spec.loss.bind(counts[places.numpy()], multi_label=task.multi_label)
                   for name, places in parts.items()}
    teachers = {one.kind: one for one in job.spec.regularizers}

    def labels_loss(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        if not batch.parts:
            return loss(logits, batch.targets, batch.weights)
        total = torch.zeros((), device=logits.device)
        for name in sorted(set(batch.parts)):  # a softmax over some of the classes, for the rows that have those
            mine = torch.tensor([at for at, part in enumerate(batch.parts) if part == name], device=logits.device)
            targets, weights = batch.targets[mine], batch.weights[mine]
            if not name:
                total = total + loss(logits[mine], targets, weights)
                continue
            places = parts[name].to(logits.device)
            among = targets[:, places] if targets.ndim == 2 else torch.searchsorted(places, targets)
            total = total + part_losses[name](logits[mine][:, places], among, weights)
        return total

    def objective(batch: Any, denominator: float) -> torch.Tensor:
        logits = network(batch.inputs)
        if logits.ndim == 3:
            found = loss(logits.flatten(0, 1), batch.targets, batch.weights)
        else:
            found = labels_loss(logits, batch)
        if batch.teacher is not None:
            assert job.teacher is not None
            told = distillation(logits, batch.teacher, batch.weights, temperature=job.teacher.temperature,
                                multi_label=task.multi_label)
            found = job.teacher.alpha * found + (1 - job.teacher.alpha) * told
        for kind, answers in batch.told.items():
            told = teachers[kind].told(logits, answers, batch.weights, multi_label=task.multi_label,
                                       parts=[*parts.values()])
            taught.add(told / denominator)
            found = found + told
        return found / denominator

    taught = Taught()
    objective.take_taught = taught.take  # type: ignore[attr-defined]
    return objective


class Taught:
    """How much of the loss came from regularizers' teachers."""

    def __init__(self) -> None:
        self.sum = 0.0

    def add(self, value: torch.Tensor) -> None:
        self.sum += float(value.detach())

    def take(self) -> float:
        """The sum since the last call, in nats."""
        found, self.sum = self.sum, 0.0
        return found


def distillation(logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, temperature: float,
                 multi_label: bool) -> torch.Tensor:
    """T² · KL(teacher_T ‖ student_T), summed over weighted rows (`multi_label`: the mean over the classes, each by
    itself). The square keeps the gradient's size when T changes (Hinton et al. 2015, section 2.1)."""
    from torch.nn import functional as F

    mine, theirs = logits.float() / temperature, teacher / temperature
    if multi_label:
        goal = theirs.sigmoid()
        each = (F.binary_cross_entropy_with_logits(mine, goal, reduction="none")
                - F.binary_cross_entropy_with_logits(theirs, goal, reduction="none")).mean(-1)
    else:
        each = F.kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return temperature ** 2 * (each * weights).sum()
