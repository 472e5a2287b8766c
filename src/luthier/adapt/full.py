"""Full fine-tuning: every weight trains. Needs 16 bytes of memory per parameter (bf16 weight and gradient, float32
master copy and two moments), and forgets more than LoRA at the same gain (Biderman et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.adapt.base import METHODS
from luthier.plugins import register
from luthier.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import nn


@register(METHODS, "full")
class Full(Spec):
    """Trains every weight of the model, or of its top layers."""

    layers: int = 0
    """Number of layers, from the top, that train, with the final norm; 0 trains all, embeddings included. Fewer layers
    need less memory and time and learn less."""

    def attach(self, module: nn.Module, *, seed: int) -> nn.Module:
        from luthier.adapt.lora import layer_count, layer_of

        first = layer_count(module) - self.layers if self.layers else 0
        for name, parameter in module.named_parameters():
            layer = layer_of(name)
            top = layer >= first if layer is not None else not _embeds(name)
            parameter.requires_grad_(top if self.layers else True)
        return module

    def save(self, module: Any, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        from luthier.adapt.base import quiet

        names = {id(parameter): name for name, parameter in module.named_parameters()}
        state = {}  # by identity: a tied output layer is the trained embedding, not the rounded copy in the module
        for name, value in module.state_dict(keep_vars=True).items():
            state[name] = tensors.get(names.get(id(value), ""), value.detach())
        with quiet():
            module.save_pretrained(folder, state_dict=state)

    def restore(self, module: nn.Module, folder: Path) -> nn.Module:
        from luthier.adapt.base import load_module

        dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
        return load_module(folder, source=str(folder), dtype=dtype)

    def merge(self, module: nn.Module) -> nn.Module:
        return module


def _embeds(name: str) -> bool:
    return any(word in name for word in ("embed", "wte", "wpe", "lm_head"))
