"""Low-rank adapters of several columns beside one frozen base: which column's take part is said at each pass.

W x + alpha / rank · B A x (Hu et al. 2021); B starts at zero, so that a new column begins as the base model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from luthier.adapt.lora import LoRA

_COLUMN: ContextVar[str] = ContextVar("luthier_column", default="")  # of each thread by itself


@contextlib.contextmanager
def using(column: str) -> Iterator[None]:
    """Passes within see this column's adapters; empty: the base model alone."""
    token = _COLUMN.set(column)
    try:
        yield
    finally:
        _COLUMN.reset(token)


class ColumnLinear(nn.Module):
    """A frozen linear layer with a pair of matrices for each column that has adapters."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        self.scales: dict[str, float] = {}
        self.drops: dict[str, float] = {}

    @property
    def weight(self) -> torch.Tensor:
        """The frozen layer's: some networks look up its number format."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias  # type: ignore[return-value]

    def add(self, column: str, facts: dict[str, Any]) -> None:
        """A fresh pair; `facts` are rank, alpha and dropout. A (rank x in) is drawn by torch's generator, B is zero."""
        from transformers.pytorch_utils import Conv1D

        rows, columns = self.weight.shape
        wide, out = (rows, columns) if isinstance(self.base, Conv1D) else (columns, rows)  # GPT-2 stores (in, out)
        rank = int(facts["rank"])
        down, up = (nn.Linear(*size, bias=False, device=self.weight.device, dtype=self.weight.dtype)
                    for size in ((wide, rank), (rank, out)))
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
        self.down[column], self.up[column] = down, up
        self.scales[column], self.drops[column] = float(facts["alpha"]) / rank, float(facts["dropout"])

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        found = self.base(value)
        column = _COLUMN.get()
        if column not in self.scales:
            return found
        small = self.down[column](nn.functional.dropout(value, self.drops[column], self.training))
        return found + self.scales[column] * self.up[column](small)


def chosen_targets(spec: LoRA, backbone: nn.Module) -> list[str]:
    """Names of the linear layers that the spec adapts, also where an earlier column adapts them already. ModelError
    where it finds none."""
    from luthier.adapt.lora import linear_names

    wrapped = [name for name, inner in backbone.named_modules() if isinstance(inner, ColumnLinear)]
    bare = [name for name in linear_names(backbone) if not any(name.startswith(f"{one}.") for one in wrapped)]
    return spec.labelled_targets(backbone, sorted([*wrapped, *bare]))


def add_adapters(backbone: nn.Module, column: str, targets: Sequence[str], facts: dict[str, Any]) -> None:
    """Give a column a pair of matrices beside each of these layers, in place."""
    for name in targets:
        inner = backbone.get_submodule(name)
        if not isinstance(inner, ColumnLinear):
            inner = ColumnLinear(inner)
            above, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(above), leaf, inner)
        inner.add(column, facts)


def without_adapters(backbone: nn.Module) -> None:
    """Take fresh PEFT adapters out again, in place."""
    for name, inner in [*backbone.named_modules()]:
        if hasattr(inner, "lora_A") and hasattr(inner, "base_layer"):
            above, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(above), leaf, inner.base_layer)
