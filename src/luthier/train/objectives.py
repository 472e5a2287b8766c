"""The training loss: cross-entropy at the supervised positions only, in chunks.

Two paths give the same number. `chunked` calls the model below its output layer, keeps the hidden states of supervised
positions, and computes logits, loss and gradient chunk by chunk, so the (tokens x vocabulary) matrix never exists:
7.3 to 5.7 GiB and 1.14 x the speed on the starter. `plain` asks the model for its logits, which any causal LM has.
`choose` takes the fast one only where it gives the model's own loss on a probe: families that scale or cap their
logits differ there and get the plain one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from luthier.train import attention
from luthier.train.batches import Batch

CHUNK_NUMBERS = 1 << 24
"""Logits alive at once (float32: 64 MiB)."""


class Objective(Protocol):
    kind: str

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        """Weighted sum of the token losses of the batch (nats), divided by `denominator`."""
        ...


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum_i w_i · (logsumexp(h_i W^T + b) - (h_i W^T + b)[target_i]); the gradient is made on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None,
                targets_N: torch.Tensor, scale_N: torch.Tensor) -> torch.Tensor:
        wants = ctx.needs_input_grad
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        d_hidden = torch.empty_like(hidden_ND) if wants[0] else None
        d_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if wants[1] else None
        d_bias = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wants[2] else None
        rows = max(1, CHUNK_NUMBERS // weight_VD.shape[0])
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, start + rows)
            hidden, targets, scale = hidden_ND[part], targets_N[part, None], scale_N[part, None]
            logits = F.linear(hidden, weight_VD, bias_V).float()
            top = logits.logsumexp(-1, keepdim=True)
            total += ((top - logits.gather(1, targets)) * scale).sum()
            if not any(wants[:3]):
                continue
            d_logits = logits.sub_(top).exp_().mul_(scale)
            d_logits.scatter_add_(1, targets, -scale)
            d_low = d_logits.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[part] = d_low @ weight_VD
            if d_weight is not None:
                d_weight += (d_low.t() @ hidden).float()
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.dtypes = (weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: torch.Tensor) -> Any:  # type: ignore[override]
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        return (None if d_hidden is None else d_hidden * d_total.to(d_hidden.dtype),
                None if d_weight is None else (d_weight * d_total).to(ctx.dtypes[0]),
                None if d_bias is None else (d_bias * d_total).to(ctx.dtypes[1]), None, None)


def chunked_cross_entropy(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None,
                          targets_N: torch.Tensor, scale_N: torch.Tensor) -> torch.Tensor:
    """Scaled sum of token losses in nats (float32 scalar), in memory of one chunk of logits."""
    return _ChunkedCrossEntropy.apply(hidden_ND, weight_VD, bias_V, targets_N, scale_N)


def bare(module: Any) -> Any:
    """The transformers model inside a PEFT wrapper."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


class Chunked:
    """Hidden states of the backbone, then the output layer at supervised positions only."""

    kind = "chunked"

    def __init__(self, module: Any):
        self.decoder = bare(module).get_decoder()
        self.head = bare(module).get_output_embeddings()
        if type(self.head) is not nn.Linear:  # an adapter on the output layer, or no output layer
            raise TypeError("the output layer is not a plain linear layer")

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        hidden = self.decoder(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)[0]
        picked = hidden.flatten(0, 1)[batch.positions]
        return chunked_cross_entropy(picked, self.head.weight, self.head.bias, batch.targets,
                                     batch.weights / denominator)


class Plain:
    """The model's own logits; for families whose output is more than one linear layer."""

    kind = "plain"

    def __init__(self, module: Any):
        self.module = module

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        logits = self.module(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        picked = logits.flatten(0, 1)[batch.positions].float()
        losses = F.cross_entropy(picked, batch.targets, reduction="none")
        return (losses * batch.weights).sum() / denominator


@torch.no_grad()
def choose(module: Any, probe: Sequence[Batch], *, tolerance: float) -> tuple[Objective, float]:
    """The fastest way to the model's own loss: the chunked output layer and the luthier attention, each only where the
    loss on `probe` stays within `tolerance` (relative) of what the untouched model gives. Sets the module's attention.

    Returns the objective and the relative difference that was found. `probe` holds batches of one unpadded example.
    """
    module.eval()
    plain = Plain(module)
    own = sum(float(plain(batch, 1.0)) for batch in probe)

    def difference(objective: Objective) -> float:
        return abs(sum(float(objective(batch, 1.0)) for batch in probe) - own) / max(abs(own), 1e-9)

    objective: Objective = plain
    with contextlib.suppress(TypeError, AttributeError):  # no decoder, or an output that is not one linear layer
        fast = Chunked(module)
        if difference(fast) <= tolerance:
            objective = fast
    model = bare(module)
    if attention.fits(model):
        before = model.config._attn_implementation
        attention.register()
        model.set_attn_implementation(attention.NAME)
        try:
            same = difference(objective) <= tolerance
        except NotImplementedError:  # a family whose layers ask for more than plain causal attention
            same = False
        if not same:
            model.set_attn_implementation(before)
    return objective, difference(objective)
