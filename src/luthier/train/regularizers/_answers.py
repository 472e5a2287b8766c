"""What regularizers that learn from another model's answers share: asking it, and the distance between two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from luthier.adapt import predict
from luthier.adapt.grow import spread_outputs
from luthier.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    from luthier.adapt.network import LabelModel
    from luthier.train.regularizers import Setting


def answers_of(teacher: LabelModel, setting: Setting, *, who: str) -> Mapping[str, np.ndarray]:
    """Example id → the teacher's logits float32 [the model's outputs], by label name, NaN for labels that it has not.

    The teacher reads the examples by its own processor, in evaluation mode, as they are (no augmentation), and is asked
    once. ModelError where its task is another one, or no label is the same.
    """
    own = setting.model
    mine, theirs = (own.task.type, own.task.multi_label), (teacher.task.type, teacher.task.multi_label)
    if mine != theirs:
        said = ["'{}'{}".format(kind, " with several labels a row" if several else "") for kind, several in
                (theirs, mine)]
        raise ModelError(f"train.regularizers: the teacher of '{who}' ({teacher.name}) was trained for the task "
                         f"{said[0]}, and this is {said[1]}; name a teacher of the same task")
    if not set(teacher.labels) & set(own.labels):
        raise ModelError(f"train.regularizers: the teacher of '{who}' ({teacher.name}) knows none of the labels "
                         f"{', '.join(own.labels[:5])}; it knows {', '.join(teacher.labels[:5])}")
    device = next(own.module.parameters()).device
    teacher.module.to(device)
    rows = teacher.rows(setting.examples, targets=False)
    found = predict.logits(teacher, rows, what=f"teacher ({who})",
                           **({} if setting.progress is None else {"progress": setting.progress}))
    spread = spread_outputs(found, teacher.labels, own.labels)
    return {example.id: values for example, values in zip(setting.examples, spread)}


def divergence(logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, temperature: float,
               multi_label: bool, parts: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """T² · KL(teacher_T ‖ student_T) over the classes that the teacher knows (those that are not NaN), summed over
    weighted rows; both sides' logits are divided by T, and the square keeps the gradient's size when T changes (Hinton
    et al. 2015, section 2.1). Rows that have no teacher add 0.

    multi_label: the mean over the known classes of the divergence of two Bernoullis. parts: a softmax for each set of
    places and one for the classes that are in none of them, added up.
    """
    logits = logits.float()
    if multi_label:
        each = _bernoullis(logits / temperature, teacher / temperature)
        return temperature ** 2 * (each * weights).sum()
    total = (logits * 0).sum()
    for places in _groups(parts, logits.shape[-1], logits.device):
        mine, theirs = logits[:, places], teacher[:, places]
        taught = (~theirs.isnan()).any(-1)
        if taught.any():
            total = total + (_softmaxes(mine[taught] / temperature, theirs[taught] / temperature)
                             * weights[taught]).sum()
    return temperature ** 2 * total


def _groups(parts: Sequence[torch.Tensor], num: int, device: Any) -> list[torch.Tensor]:
    covered = torch.zeros(num, dtype=torch.bool, device=device)
    for places in parts:
        covered[places] = True
    rest = torch.nonzero(~covered).flatten()
    return [places.to(device) for places in (*parts, rest) if len(places)]


def _softmaxes(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """KL of each row; every row knows at least one class."""
    unknown = theirs.isnan()
    log_p = theirs.masked_fill(unknown, float("-inf")).log_softmax(-1).masked_fill(unknown, 0.0)
    log_q = mine.masked_fill(unknown, float("-inf")).log_softmax(-1).masked_fill(unknown, 0.0)
    return (log_p.exp().masked_fill(unknown, 0.0) * (log_p - log_q)).sum(-1)


def _bernoullis(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    known = ~theirs.isnan()
    theirs = theirs.masked_fill(~known, 0.0)
    goal = theirs.sigmoid()
    each = (F.binary_cross_entropy_with_logits(mine, goal, reduction="none")
            - F.binary_cross_entropy_with_logits(theirs, goal, reduction="none")) * known
    return each.sum(-1) / known.sum(-1).clamp_min(1)
