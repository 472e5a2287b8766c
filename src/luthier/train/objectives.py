"""The training loss: cross-entropy at the supervised positions only, in chunks.

Two paths give the same number. `chunked` calls the model below its output layer, keeps the hidden states of supervised
positions, and computes logits, loss and gradient chunk by chunk, so the (tokens x vocabulary) matrix never exists:
7.3 to 5.7 GiB and 1.14 x the speed on the starter. `plain` asks the model for its logits, which any causal LM has.
`choose` takes the fast one only where it gives the model's own loss on a probe: families that scale or cap their
logits differ there and get the plain one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from luthier.train import attention, fast
from luthier.train.batches import Batch

CHUNK_NUMBERS = 1 << 24
"""Logits alive at once (float32: 64 MiB)."""


class Objective(Protocol):
    kind: str

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        """Weighted sum of the token losses of the batch (nats), divided by `denominator`."""
        ...

    def states(self, batch: Batch) -> torch.Tensor:
        """What the loss is made from at each supervised position: hidden states (N, D), or logits (N, V)."""
        ...

    def loss(self, states: torch.Tensor, batch: Batch, denominator: float) -> torch.Tensor:
        """The loss of a batch whose states are known."""
        ...

    def output_layer(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Weight (V, D) and bias (V) that turn states into logits; None where states are logits."""
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
            logits.sub_(logits.amax(-1, keepdim=True))
            own = logits.gather(1, targets)
            mass = logits.exp_().sum(-1, keepdim=True)  # one exponential serves the loss and its gradient
            total += ((mass.log() - own) * scale).sum()
            if not any(wants[:3]):
                continue
            d_logits = logits.mul_(scale / mass)
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
        return self.loss(self.states(batch), batch, denominator)

    def states(self, batch: Batch) -> torch.Tensor:
        hidden = self.decoder(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)[0]
        return hidden.flatten(0, 1)[batch.positions]

    def loss(self, states: torch.Tensor, batch: Batch, denominator: float) -> torch.Tensor:
        return chunked_cross_entropy(states, self.head.weight, self.head.bias, batch.targets,
                                     batch.weights / denominator)

    def output_layer(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.head.weight, self.head.bias


class Plain:
    """The model's own logits; for families whose output is more than one linear layer."""

    kind = "plain"

    def __init__(self, module: Any):
        self.module = module

    def __call__(self, batch: Batch, denominator: float) -> torch.Tensor:
        return self.loss(self.states(batch), batch, denominator)

    def states(self, batch: Batch) -> torch.Tensor:
        logits = self.module(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        return logits.flatten(0, 1)[batch.positions].float()

    def loss(self, states: torch.Tensor, batch: Batch, denominator: float) -> torch.Tensor:
        losses = F.cross_entropy(states, batch.targets, reduction="none")
        return (losses * batch.weights).sum() / denominator

    def output_layer(self) -> None:
        return None


@dataclass(frozen=True)
class Path:
    """How the loss is computed, and how far it is from the untouched model's."""

    objective: Objective
    swaps: tuple[str, ...]
    """Layers that were replaced, by their name in `luthier.train.fast.SWAPS`."""
    attention: str
    loss: float
    """Relative difference of the probe's loss."""
    gradient: float
    """Relative norm of the difference of the probe's gradient."""


def choose(module: Any, probe: Sequence[Batch], *, tolerance: float) -> Path:
    """The fastest way to the model's own loss and gradient: chunked output layer, luthier attention, faster layers,
    each kept only where the loss on `probe` stays within `tolerance` and the gradient within 100 times that (relative)
    of what the untouched model gives. Changes the module's attention and layers.

    `probe` holds batches of one unpadded example. While comparing, the trainable weights are shaken: a fresh LoRA's B
    is zero, which would hide a fault in everything that B multiplies. They end bit-identical.
    """
    module.eval()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    plain, model = Plain(module), bare(module)
    with _shaken(parameters):
        reference = _probe(plain, probe, parameters)
        objective: Objective = plain

        found = (0.0, 0.0)

        def same() -> bool:
            nonlocal found
            try:
                loss, gradient = _probe(objective, probe, parameters)
            except NotImplementedError:  # a family whose layers ask for more than plain causal attention
                return False
            distance = (abs(loss - reference[0]) / max(abs(reference[0]), 1e-9),
                        float((gradient - reference[1]).norm() / reference[1].norm().clamp_min(1e-12)))
            if distance[0] > tolerance or distance[1] > 100 * tolerance:
                return False
            found = distance
            return True

        with contextlib.suppress(TypeError, AttributeError):  # no decoder, or an output that is not one linear layer
            objective = Chunked(module)
            if not same():
                objective = plain
        if attention.fits(model):
            before = model.config._attn_implementation
            attention.register()
            model.set_attn_implementation(attention.NAME)
            if not same():
                model.set_attn_implementation(before)
        kept = []
        for name, swap in fast.SWAPS.items():
            undo = swap(module)
            if undo is not None and same():
                kept.append(name)
            elif undo is not None:
                undo()
    return Path(objective, tuple(kept), model.config._attn_implementation, *found)


def _probe(objective: Objective, probe: Sequence[Batch], parameters: Sequence[torch.Tensor]
           ) -> tuple[float, torch.Tensor]:
    """Summed loss of the probe and its gradient as one float32 vector."""
    loss = torch.stack([objective(batch, 1.0) for batch in probe]).sum()
    if not loss.requires_grad:
        return float(loss), torch.zeros(1, device=loss.device)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(loss.detach()), torch.cat([
        (torch.zeros_like(p) if g is None else g).float().flatten() for p, g in zip(parameters, found)])


@contextlib.contextmanager
def _shaken(parameters: Sequence[torch.Tensor]) -> Iterator[None]:
    """Trainable matrices with a little noise, put back bit by bit."""
    kept = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator) * 0.01
                parameter.add_(noise.to(parameter.device, parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, kept):
                parameter.copy_(old)
