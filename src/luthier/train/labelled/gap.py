"""The train/validation gap, and what it says: does the model know its rows by heart?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import LabelModel
from luthier.train.labelled.score import LOWER, validate
from luthier.types import Example

ROWS = 1000
"""Train rows on which the gap is measured."""


def measure_gap(model: LabelModel, examples: Sequence[Example], rows: Sequence[Row], *, validation: float,
                n_validation: int, seed: int, parts: Mapping[str, Sequence[str]] | None = None
                ) -> dict[str, Any] | None:
    """The task's metric on at most 1,000 rows that were trained on, beside the one on validation rows; None where no
    train row has a label of its own."""
    labelled = [at for at, row in enumerate(rows) if row.target is not None]
    if not labelled:
        return None
    rng = np.random.default_rng([seed, 4])
    chosen = [labelled[at] for at in sorted(rng.permutation(len(labelled))[:ROWS])]
    train, loss, _ = validate(model, [examples[at] for at in chosen], [rows[at] for at in chosen], parts=parts)
    return {"train": train, "validation": validation, "n_train": len(chosen), "n_validation": n_validation,
            "train_loss": loss,
            **memorises(model.task.metric, train, validation, n_train=len(chosen), n_validation=n_validation)}


def memorises(metric: str, train: float, validation: float, *, n_train: int, n_validation: int) -> dict[str, Any]:
    """Whether a model knows its train rows by heart without knowing more.

    It does when it leaves less than a quarter of the validation error on its train rows, and the gap is larger than 5
    points even at the lower end of its 95 % interval (a normal one, from the rows on both sides): ten validation rows
    show nothing. For log_loss: less than a quarter of the validation loss, and at least 0.2 nats below it.
    """
    if metric in LOWER:
        noise = 0.0
        found = train < 0.25 * validation and validation - train > 0.2
    else:
        noise = 1.96 * math.sqrt(sum(max(value * (1 - value), 0.0) / max(n, 1)
                                     for value, n in ((train, n_train), (validation, n_validation))))
        found = train - validation - noise > 0.05 and 1 - train < 0.25 * (1 - validation)
    gap = f"{metric} {train:.3f} on {n_train:,} train rows, {validation:.3f} on {n_validation:,} validation rows"
    sentence = (f"The model memorises: {gap}. More rows, augmentation, more dropout, an earlier stop or fewer layers "
                "that learn would help." if found else f"No sign of memorising: {gap}.")
    return {"memorises": bool(found), "sentence": sentence, "noise": noise}
