"""Faster layers that stand in for a model's own, each checked against it before it may train.

A swap finds the layers it knows, replaces their `forward`, and can be undone. `objectives.choose` keeps a swap only
where the probe's loss and gradient stay what the untouched model gives; a family that a swap does not fit is left
alone. A faster layer for one family docks here: one class, one line in `SWAPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Undo = Callable[[], None]


class _LoraLinear(torch.autograd.Function):
    """x W^T + b + s · (x A^T) B^T for a frozen W: keeps x and the small x A^T, adds in place, and forms no gradient
    for W. PEFT's own forward makes four more tensors of the output's size."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, a_RI: torch.Tensor,
                b_OR: torch.Tensor, scale: float) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        small = rows @ a_RI.t()
        out = F.linear(rows, weight_OI, bias_O).addmm_(small, b_OR.t(), alpha=scale)
        ctx.save_for_backward(rows, small, weight_OI, a_RI, b_OR)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:  # type: ignore[override]
        rows, small, weight_OI, a_RI, b_OR = ctx.saved_tensors
        d_rows = d_out.reshape(-1, d_out.shape[-1])
        d_small = (d_rows @ b_OR).mul_(ctx.scale)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_rows @ weight_OI).addmm_(d_small, a_RI).view(*d_out.shape[:-1], -1)
        return d_x, None, None, d_small.t() @ rows, (d_rows.t() @ small).mul_(ctx.scale), None


def swap_lora(module: Any) -> Undo | None:
    """PEFT's LoRA on a frozen linear layer, without dropout."""
    from peft.tuners.lora.layer import Linear

    swapped = []
    for inner in module.modules():
        if type(inner) is not Linear or list(inner.lora_A) != ["default"] or inner.lora_variant:
            continue
        base, a, b = inner.base_layer, inner.lora_A["default"], inner.lora_B["default"]
        if type(base) is nn.Linear and not base.weight.requires_grad and b.bias is None \
                and isinstance(inner.lora_dropout["default"], nn.Identity):
            inner.forward = _lora_forward(inner, base, a, b)
            swapped.append(inner)
    return _undo(swapped)


def _lora_forward(inner: Any, base: nn.Linear, a: Any, b: Any) -> Callable[..., torch.Tensor]:
    own = type(inner).forward

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or inner.disable_adapters or inner.merged or x.dtype != a.weight.dtype:
            return own(inner, x, *args, **kwargs)
        return _LoraLinear.apply(x, base.weight, base.bias, a.weight, b.weight, float(inner.scaling["default"]))

    return forward


class _RMSNorm(torch.autograd.Function):
    """w · x / sqrt(mean(x²) + eps), in float32 inside; keeps x and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        # rounds where transformers does: before the weight
        return (wide * inverse).to(x.dtype).mul_(weight) if not weight.requires_grad else \
            (wide * inverse).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:  # type: ignore[override]
        x, weight, inverse = ctx.saved_tensors
        normed = x.float().mul_(inverse)
        d_weight = (d_out * normed.to(x.dtype)).flatten(0, -2).float().sum(0).to(weight.dtype) \
            if ctx.needs_input_grad[1] else None
        d_normed = (d_out * weight).float()
        along = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.sub_(normed.mul_(along)).mul_(inverse).to(x.dtype), d_weight, None


def swap_norms(module: Any) -> Undo | None:
    """Root-mean-square norms as Llama writes them."""
    swapped = []
    for inner in module.modules():
        if type(inner).__name__.endswith("RMSNorm") and hasattr(inner, "variance_epsilon") and hasattr(inner, "weight"):
            inner.forward = _norm_forward(inner)
            swapped.append(inner)
    return _undo(swapped)


def _norm_forward(inner: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: _RMSNorm.apply(x, inner.weight, inner.variance_epsilon)


def _undo(swapped: list[Any]) -> Undo | None:
    if not swapped:
        return None

    def undo() -> None:
        for inner in swapped:
            inner.__dict__.pop("forward", None)

    return undo


SWAPS: dict[str, Callable[[Any], Undo | None]] = {"lora": swap_lora, "norms": swap_norms}
"""Tried in this order; the reference is always the model's own forward."""
