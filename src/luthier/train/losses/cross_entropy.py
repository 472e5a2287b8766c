"""Cross-entropy with label smoothing (Szegedy et al. 2016) and class weights; binary for several labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.train.losses import LOSSES, Loss, balanced

if TYPE_CHECKING:
    import numpy as np
    import torch

    from luthier.train.losses import BoundLoss


@register(LOSSES, "cross_entropy")
class CrossEntropy(Loss):
    """The negative log-probability of the right class."""

    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all classes: against overconfidence."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` lets every class count alike, however many rows it has."""

    def bind(self, counts: np.ndarray, *, multi_label: bool) -> BoundLoss:
        import torch
        from torch.nn import functional as F

        class_weights = torch.from_numpy(balanced(counts)) if self.class_weights == "balanced" else None

        def loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            logits = logits.float()
            own = None if class_weights is None else class_weights.to(logits.device)
            if multi_label:
                goal = targets * (1 - self.smoothing) + self.smoothing / 2
                each = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
                if own is not None:  # only where the class is present: a rare class's absences are common enough
                    each = each * (1 + targets * (own - 1))
                return (each.mean(-1) * weights).sum()
            if targets.dtype == torch.int64:
                each = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.smoothing)
                return (each * weights if own is None else each * weights * own[targets]).sum()
            goal = targets * (1 - self.smoothing) + self.smoothing / logits.shape[-1]
            each = -(goal * logits.log_softmax(-1)).sum(-1)
            return (each * weights if own is None else each * weights * (targets @ own)).sum()

        return loss
