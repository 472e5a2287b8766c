"""The weights that a network computes with, and how far they have moved: what penalties on weights measure.

Beside a frozen W, LoRA's A and B count only as the product: the weight is W + s B A, and A·c with B/c is the same
weight. Names are those of the network without adapters, so they stay the same when adapters are merged and saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Weight:
    """One weight: a parameter that trains by itself, or a frozen one with low-rank updates beside it."""

    name: str
    base: nn.Parameter
    pairs: tuple[tuple[float, nn.Parameter, nn.Parameter], ...] = ()
    """(scale, A [rank, in], B [out, rank]) of its updates, which add up."""
    transposed: bool = False
    """`base` is stored as [in, out] (GPT-2's Conv1D)."""

    @property
    def trains(self) -> bool:
        return any(p.requires_grad for _, a, b in self.pairs for p in (a, b)) or (
            not self.pairs and self.base.requires_grad)

    @torch.no_grad()
    def value(self) -> torch.Tensor:
        """The weight as a float32 (or float64) copy, in the shape of `base`."""
        found = wide(self.base.detach()).clone()
        for scale, a, b in self.pairs:
            added = scale * (wide(b) @ wide(a))
            found += added.t() if self.transposed else added
        return found


def all_weights(module: nn.Module) -> list[Weight]:
    """Every weight of a network, one of each shared tensor, in the order of its parameters."""
    paired: dict[int, tuple[tuple[tuple[float, nn.Parameter, nn.Parameter], ...], bool]] = {}
    factors: set[int] = set()
    for inner in module.modules():
        layer: Any = inner
        if hasattr(layer, "lora_A") and hasattr(layer, "scaling") and len(layer.lora_A):
            pairs = tuple((float(layer.scaling[name]), layer.lora_A[name].weight, layer.lora_B[name].weight)
                          for name in layer.lora_A)
            paired[id(layer.base_layer.weight)] = (pairs, bool(getattr(layer, "fan_in_fan_out", False)))
            factors |= {id(p) for _, a, b in pairs for p in (a, b)}
    return [Weight(plain_name(name), parameter, *paired.get(id(parameter), ((), False)))
            for name, parameter in module.named_parameters() if id(parameter) not in factors]


def training_weights(module: nn.Module) -> list[Weight]:
    """Those that may change."""
    return [weight for weight in all_weights(module) if weight.trains]


def plain_name(name: str) -> str:
    """A parameter's name in the network without adapters."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class Drift:
    """How far a weight has moved since this was made, differentiable in what trains."""

    def __init__(self, weight: Weight):
        self.weight = weight
        self.start = None if weight.pairs else wide(weight.base.detach()).clone()
        self.starts = [(wide(a.detach()).clone(), wide(b.detach()).clone()) if bool(b.detach().any()) else None
                       for _, a, b in weight.pairs]
        """A and B at the start; None where B was zero, as it is in a fresh adapter."""

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """LoRA: P [out, r] and Q [r, in] whose product is the change. s (B A - B0 A0) is written as
        s ((B - B0) A + B0 (A - A0)), which loses no digits while the change is small."""
        left, right = [], []
        for (scale, a, b), start in zip(self.weight.pairs, self.starts):
            a, b = wide(a), wide(b)
            if start is None:
                left, right = [*left, scale * b], [*right, a]
            else:
                left, right = [*left, scale * (b - start[1]), scale * start[1]], [*right, a, a - start[0]]
        return torch.cat(left, 1), torch.cat(right, 0)

    def change(self) -> torch.Tensor:
        """A parameter that trains by itself: its change, in its shape."""
        assert self.start is not None
        return wide(self.weight.base) - self.start

    def squared(self) -> torch.Tensor:
        """The squared Euclidean length of the change, computed in rank x rank for LoRA."""
        if not self.weight.pairs:
            return self.change().square().sum()
        left, right = self.factors()
        return ((left.t() @ left) * (right @ right.t())).sum()


def drifts(module: nn.Module) -> Iterator[Drift]:
    """For every weight that trains."""
    return (Drift(weight) for weight in training_weights(module))
