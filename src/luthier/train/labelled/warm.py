"""A head that begins as a logistic regression on frozen features, and features that stand in for the backbone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import LabelModel
from luthier.errors import need

STRENGTHS = (0.1, 1.0, 10.0)
"""Inverse L2 strengths that are tried on the validation rows."""


def logistic_regression(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, num_outputs: int,
                        multi_label: bool, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weights float32 [outputs, width] and biases [outputs] of scikit-learn's logistic regression (L-BFGS).

    targets: int [rows], or 0/1 [rows, outputs] with `multi_label`. A class that has no row keeps zero weights
    and a bias below all others.
    """
    linear_model = need("sklearn.linear_model", extra="train")

    def solve(y: np.ndarray) -> Any:
        model = linear_model.LogisticRegression(C=strength, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 300 iterations are enough for a beginning
            return model.fit(features, y, sample_weight=weights)

    weight = np.zeros((num_outputs, features.shape[1]), dtype=np.float32)
    bias = np.zeros(num_outputs, dtype=np.float32)
    if multi_label:
        for at in range(num_outputs):
            y = (targets[:, at] > 0.5).astype(int)
            if 0 < y.sum() < len(y):
                found = solve(y)
                weight[at], bias[at] = found.coef_[0], found.intercept_[0]
            else:
                bias[at] = 5.0 if y.sum() else -5.0
        return weight, bias
    present = np.unique(targets)
    if len(present) == 1:
        bias[:] = -5.0
        bias[present] = 0.0
        return weight, bias
    found = solve(targets)
    if len(present) == 2:  # scikit-learn gives one row for two classes
        coef, intercept = np.stack([-found.coef_[0], found.coef_[0]]) / 2, np.array([-1, 1]) * found.intercept_[0] / 2
    else:
        coef, intercept = found.coef_, found.intercept_
    weight[present], bias[present] = coef, intercept
    absent = np.setdiff1d(np.arange(num_outputs), present)
    bias[absent] = bias[present].min() - 1
    return weight, bias


def arrays(rows: Sequence[Row], *, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hard targets and weights of rows; a soft label counts as its likeliest class."""
    if multi_label:
        targets = np.stack([np.asarray(row.target) for row in rows])
    else:
        targets = np.array([int(np.argmax(row.target)) if isinstance(row.target, np.ndarray) else int(row.target)
                            for row in rows])
    return targets, np.array([row.weight for row in rows], dtype=np.float64)


def warm_head(model: LabelModel, train: np.ndarray, rows: Sequence[Row], validation: np.ndarray,
              validation_rows: Sequence[Row], *, parts: Mapping[str, np.ndarray] | None = None,
              only: np.ndarray | None = None) -> float:
    """Put a logistic regression on `train` features [rows, width] into the head's output layer; the L2 strength is the
    one with the lowest validation loss (1 without validation rows). Returns the strength.

    Where rows have only some of the classes (`Row.part`; `parts` are their places), each such set gets a regression of
    its own, and other outputs stay as they are. `only` (places, ascending) are the outputs that may be set at all:
    those of classes that are new to a head that knows others; the regression is among them alone."""
    from luthier.train.labelled.score import score_labels

    own = getattr(model.module, "own", None)
    if own is not None:  # a column's head stands on its own features, and reads the others' beside them
        train, validation = own(train), own(validation)
    several = model.task.multi_label
    if only is not None:
        return _warm_new(model, train, rows, only)
    if parts and any(row.part for row in rows):
        return _warm_parts(model, train, rows, parts)
    targets, weights = arrays(rows, multi_label=several)
    options: dict[str, Any] = {"num_outputs": len(model.labels), "multi_label": several}
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for strength in STRENGTHS if len(validation_rows) else (1.0,):
        weight, bias = logistic_regression(train, targets, weights, strength=strength, **options)
        loss = 0.0
        if len(validation_rows):
            wanted, _ = arrays(validation_rows, multi_label=several)
            loss = score_labels("log_loss", wanted, validation @ weight.T + bias, multi_label=several)
        if best is None or loss < best[0]:
            best = (loss, strength, weight, bias)
    assert best is not None
    last = model.module.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(best[2]))
        last.bias.copy_(torch.from_numpy(best[3]))
    return best[1]


def _warm_parts(model: LabelModel, train: np.ndarray, rows: Sequence[Row], parts: Mapping[str, np.ndarray]) -> float:
    targets, weights = arrays(rows, multi_label=model.task.multi_label)
    for name in parts:
        mine = np.array([at for at, row in enumerate(rows) if row.part == name], dtype=np.int64)
        if len(mine):
            _put_regression(model, train[mine], targets[mine], weights[mine])
    return 1.0


def _warm_new(model: LabelModel, train: np.ndarray, rows: Sequence[Row], only: np.ndarray) -> float:
    targets, weights = arrays(rows, multi_label=False)
    mine = np.flatnonzero(np.isin(targets, only))
    if len(np.unique(targets[mine])) > 1:  # one class alone has nothing to be told from
        _put_regression(model, train[mine], targets[mine], weights[mine])
    return 1.0


def _put_regression(model: LabelModel, features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> None:
    """A logistic regression among the classes of these rows, in their outputs alone."""
    last = model.module.head[-1]
    assert isinstance(last, nn.Linear)
    present = np.unique(targets)
    weight, bias = logistic_regression(features, np.searchsorted(present, targets), weights,
                                       num_outputs=len(present), multi_label=False)
    with torch.no_grad():
        last.weight[present] = torch.from_numpy(weight).to(last.weight.dtype)
        last.bias[present] = torch.from_numpy(bias).to(last.bias.dtype)


def can_warm(model: LabelModel) -> bool:
    """Whether the head is one linear layer over pooled features that need no training."""
    head, task = model.module.spec, model.task.type
    return head.warm_start and not head.hidden and task in ("classify", "image") and not model.module.pool_trains


def as_rows(rows: Sequence[Row], features: np.ndarray) -> list[Row]:
    """Rows whose data are finished features."""
    return [row.but(data=features[at], size=1) for at, row in enumerate(rows)]
