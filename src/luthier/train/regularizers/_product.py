"""A weighted squared length of a low-rank product, in the memory of its factors' gradients."""

from __future__ import annotations

from typing import Any

import torch


class _ProductPull(torch.autograd.Function):
    """Makes both gradients on the way forward, so that no matrix of the product's size outlives its layer."""

    @staticmethod
    def forward(ctx: Any, left_OR: torch.Tensor, right_RI: torch.Tensor, fisher_OI: torch.Tensor,
                gap_OI: torch.Tensor | None) -> torch.Tensor:
        change = left_OR @ right_RI if gap_OI is None else torch.addmm(gap_OI, left_OR, right_RI)
        pull = fisher_OI * change
        ctx.save_for_backward(pull @ right_RI.t(), left_OR.t() @ pull)
        return 0.5 * (pull * change).sum()

    @staticmethod
    def backward(ctx: Any, d_total: torch.Tensor) -> Any:  # type: ignore[override]
        d_left, d_right = ctx.saved_tensors
        return d_total * d_left, d_total * d_right, None, None


def product_pull(left_OR: torch.Tensor, right_RI: torch.Tensor, fisher_OI: torch.Tensor, gap_OI: torch.Tensor | None
                 ) -> torch.Tensor:
    """1/2 · sum of F (P Q + gap)²; scalar, differentiable in P and Q."""
    return _ProductPull.apply(left_OR, right_RI, fisher_OI, gap_OI)
