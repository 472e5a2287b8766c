"""Weights of linear layers in oneDNN's own blocked order while text is generated on a CPU.

A decode step multiplies a few rows by every weight of the model. Plain layouts make the library reorder the weights at
each call (bfloat16) or read them in unfortunate strides (float32, 2 rows and more). Packed once, the same products run
1.3 to 2.6 times faster at 8 rows (measured on SmolLM2-135M, one AVX512/AMX core); docs/serve.md has the figures. The
sums are taken in another order, so results differ in the last bits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

MAX_SHARE = 0.25  # of the free memory that the packed copies may take; larger models generate unpacked


@contextlib.contextmanager
def packed(module: nn.Module) -> Iterator[int]:
    """Within the context every plain linear layer computes with a packed copy of its weight as it is now.

    Gives the number of layers packed: 0 on other devices, without oneDNN, or when memory is short. Not for training
    inside: the copies know neither gradients nor updates.
    """
    layers = [layer for layer in module.modules() if type(layer) is nn.Linear and _suits(layer)]
    size = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    if size > MAX_SHARE * _free_memory():
        layers = []
    try:
        for layer in layers:
            layer.forward = _forward(layer)  # type: ignore[method-assign]
        yield len(layers)
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _suits(layer: nn.Linear) -> bool:
    if layer.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or "forward" in layer.__dict__:
        return False
    if layer.weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return layer.weight.dtype == torch.float32


def _forward(layer: nn.Linear):
    with torch.inference_mode():
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 8)
    bias = None if layer.bias is None else layer.bias.detach()
    return partial(_linear, layer.weight, weight, bias)


def _linear(plain: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """x [..., in] → [..., out]. One row in float32 is faster with the plain weight (a matrix-vector product)."""
    if x.dtype != plain.dtype or (x.dtype == torch.float32 and x.numel() == x.shape[-1]):
        return F.linear(x, plain, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _free_memory() -> int:
    """Bytes that the system could give now without swapping; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open("/proc/meminfo") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
