"""Focal loss (Lin et al. 2017): cross-entropy times (1 - p)^gamma, so that rows which are right already count less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.train.losses import LOSSES, Loss, balanced

if TYPE_CHECKING:
    import numpy as np
    import torch

    from luthier.train.losses import BoundLoss


@register(LOSSES, "focal")
class Focal(Loss):
    """Cross-entropy that spends itself on the hard rows: for rare classes among many easy rows."""

    gamma: float = Field(default=2.0, ge=0)
    """How much rows that are right already are discounted; 0 is plain cross-entropy."""
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
                each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
                right = torch.exp(-F.binary_cross_entropy_with_logits(logits, targets.round(), reduction="none"))
                each = each * (1 - right) ** self.gamma
                if own is not None:
                    each = each * (1 + targets * (own - 1))
                return (each.mean(-1) * weights).sum()
            log_p = logits.log_softmax(-1)
            goal = F.one_hot(targets, logits.shape[-1]).float() if targets.dtype == torch.int64 else targets
            if own is not None:
                goal = goal * own
            return (-(goal * (1 - log_p.exp()) ** self.gamma * log_p).sum(-1) * weights).sum()

        return loss
