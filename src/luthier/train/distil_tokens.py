"""Learning without forgetting (Li & Hoiem 2016) for language models: tokens go on being predicted as they were before.

At every supervised token of the rows that are taught, T² · KL(teacher_T ‖ student_T) over the whole vocabulary is
added to the loss (Hinton et al. 2015). The teacher is the model as it was when training began. It needs no second
model: a copy of the weights that train is put in their place for one pass without gradients, which for LoRA is a few
megabytes. The distance is made chunk by chunk, as the loss is, so the (tokens x vocabulary) matrix never exists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from luthier.train import objectives
from luthier.train.batches import Batch


class _ChunkedDivergence(torch.autograd.Function):
    """sum_i s_i · T² · KL(softmax(t_i / T) ‖ softmax(z_i / T)); the gradient is made on the way forward. Logits are
    h W^T + b of either side, or the states themselves where W is None."""

    @staticmethod
    def forward(ctx: Any, states_ND: torch.Tensor, weight_VD: torch.Tensor | None, bias_V: torch.Tensor | None,
                teacher_ND: torch.Tensor, teacher_weight_VD: torch.Tensor | None, teacher_bias_V: torch.Tensor | None,
                scale_N: torch.Tensor, temperature: float) -> torch.Tensor:
        wants = ctx.needs_input_grad
        total = torch.zeros((), dtype=torch.float32, device=states_ND.device)
        d_states = torch.empty_like(states_ND) if wants[0] else None
        d_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if weight_VD is not None and wants[1] else None
        d_bias = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wants[2] else None
        words = states_ND.shape[1] if weight_VD is None else weight_VD.shape[0]
        rows = max(1, objectives.CHUNK_NUMBERS // words)
        for start in range(0, len(states_ND), rows):
            part = slice(start, start + rows)
            states, scale = states_ND[part], scale_N[part, None]
            mine = _logits(states, weight_VD, bias_V).div_(temperature).log_softmax(-1)
            theirs = _logits(teacher_ND[part], teacher_weight_VD, teacher_bias_V).div_(temperature).log_softmax(-1)
            goal = theirs.exp()
            total += temperature**2 * ((goal * (theirs - mine)).sum(-1, keepdim=True) * scale).sum()
            if not any(wants[:3]):
                continue
            d_logits = mine.exp_().sub_(goal).mul_(temperature * scale)
            d_low = d_logits.to(states.dtype)
            if d_states is not None:
                d_states[part] = d_low if weight_VD is None else d_low @ weight_VD
            if d_weight is not None:
                d_weight += (d_low.t() @ states).float()
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        ctx.save_for_backward(d_states, d_weight, d_bias)
        ctx.dtypes = tuple(None if one is None else one.dtype for one in (weight_VD, bias_V))
        return total

    @staticmethod
    def backward(ctx: Any, d_total: torch.Tensor) -> Any:  # type: ignore[override]
        d_states, d_weight, d_bias = ctx.saved_tensors
        return (None if d_states is None else d_states * d_total.to(d_states.dtype),
                None if d_weight is None else (d_weight * d_total).to(ctx.dtypes[0]),
                None if d_bias is None else (d_bias * d_total).to(ctx.dtypes[1]), None, None, None, None, None)


def _logits(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, bias_V: torch.Tensor | None) -> torch.Tensor:
    """A new float32 (N, V)."""
    return states_ND.float().clone() if weight_VD is None else F.linear(states_ND, weight_VD, bias_V).float()


class TokenDistillation:
    """An objective that also keeps up what the model said at the start, on the tokens that are taught.

    It distils only while the module trains: validation and the contract read the task's loss alone.
    """

    def __init__(self, objective: objectives.Objective, module: nn.Module, *, strength: float, temperature: float):
        """The teacher has the weights that `module` has now."""
        self.inner, self.module = objective, module
        self.kind = objective.kind
        self.strength, self.temperature = strength, temperature
        self.starts = [(parameter, parameter.detach().clone()) for parameter in module.parameters()
                       if parameter.requires_grad]
        self._taught = torch.zeros((), dtype=torch.float64)

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        """Weighted sum of the token losses and of the distances (nats), divided by `denominator`."""
        if not self.module.training or not len(batch.taught) or not self.strength:
            return self.inner(batch, denominator)
        teacher, layer = self._teacher(batch)
        states = self.inner.states(batch)
        mine = self.inner.output_layer() or (None, None)
        scale = batch.weights[batch.taught] * (self.strength / denominator)
        taught = _ChunkedDivergence.apply(states[batch.taught], *mine, teacher[batch.taught], *layer, scale,
                                          self.temperature)
        self._taught += taught.detach().double().cpu()
        return self.inner.loss(states, batch, denominator) + taught

    def take_taught(self) -> float:
        """What distillation added to the loss since the last call, in nats."""
        taught, self._taught = float(self._taught), torch.zeros((), dtype=torch.float64)
        return taught

    @torch.no_grad()
    def _teacher(self, batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor | None, torch.Tensor | None]]:
        """The states of the model as it was, and its output layer."""
        with self._as_before():
            weight, bias = self.inner.output_layer() or (None, None)
            return self.inner.states(batch), (None if weight is None else weight.detach(),
                                              None if bias is None else bias.detach())

    @contextlib.contextmanager
    def _as_before(self) -> Iterator[None]:
        """The weights of the start, in evaluation mode. Only pointers change hands, so it costs nothing and the trained
        weights come back bit by bit."""
        now = [parameter.data for parameter, _ in self.starts]
        try:
            self.module.eval()
            for parameter, start in self.starts:
                parameter.data = start
            yield
        finally:
            for (parameter, _), data in zip(self.starts, now, strict=True):
                parameter.data = data
            self.module.train()
