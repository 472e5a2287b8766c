"""A multilayer perceptron on the pixels: the small network that is trained from scratch, `mlp:256x256`.

Every layer is linear with a ReLU after it. A progressive network reaches between its layers (`walk`), so that a new
column can read what older columns' layers say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luthier.adapt.backbones.base import Row
from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor
from luthier.errors import ModelError
from luthier.models.sources import MLP

FAMILY = "mlp"
SIDE = 28
"""Pixels to a side where `image_size` says nothing: MNIST's."""
_LAYERS = re.compile(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){0,15}")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colours into grey

Added = Callable[[int], "torch.Tensor | None"]
"""Place of a layer → what is added before its ReLU, [rows, units], or None."""


@dataclass
class MlpProcessor(ImageProcessor):
    """The whole image squeezed to a square, its values 0 to 1; grey unless colours are asked for."""

    colours: bool = False

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """`pixels` float32 [rows, 1 or 3, size, size]."""
        pixels = super().batch(rows)["pixels"]
        if not self.colours:
            pixels = (pixels * torch.tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return {"pixels": pixels}


class MlpBackbone(ImageBackbone):
    """Features [rows, units of the last layer], never negative."""

    family = FAMILY
    processor: MlpProcessor  # type: ignore[reportIncompatibleVariableOverride]

    def __init__(self, units: Sequence[int], processor: MlpProcessor, *, seed: int = 0):
        """`units` of each layer, the lowest first. Weights are drawn by torch's generator as it stands; `seed` is kept
        only to tell networks apart."""
        super().__init__()
        self.processor = processor  # type: ignore[reportIncompatibleVariableOverride]
        self.units, self.width, self.seed = tuple(units), units[-1], seed
        inputs = (3 if processor.colours else 1) * processor.size**2
        self.layers = nn.ModuleList(nn.Linear(size, out) for size, out in zip((inputs, *units), units))

    def walk(self, inputs: dict[str, torch.Tensor], added: Added = lambda at: None) -> list[torch.Tensor]:
        """What every layer says, each [rows, units]."""
        pixels = inputs["pixels"]
        value, found = pixels.flatten(1).to(self.layers[0].weight.dtype), []  # type: ignore[arg-type]
        for at, layer in enumerate(self.layers):
            value = layer(value)
            more = added(at)
            value = torch.relu(value if more is None else value + more)
            found.append(value)
        return found

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.walk(inputs)[-1]

    def groups(self) -> dict[str, list[str]]:
        return {f"layer.{at:03d}": [f"layers.{at}.weight", f"layers.{at}.bias"] for at in range(len(self.layers))}

    def describe(self) -> dict[str, Any]:
        return {"units": list(self.units), "seed": self.seed, "width": self.width}


def open_mlp(source: str, *, image_size: int | None, seed: int) -> MlpBackbone:
    """The network that `mlp:256x256` (or `mlp:256x256@rgb`) names, its weights drawn by torch's generator as it stands.
    ModelError for a source that names none."""
    sizes, at, colours = source.removeprefix(MLP).partition("@")
    if not _LAYERS.fullmatch(sizes) or (at and colours != "rgb"):
        raise ModelError(f"model '{source}': name the units of each layer, such as mlp:256x256 (grey) or "
                         "mlp:256x256@rgb (colours)")
    processor = MlpProcessor(size=image_size or SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize="exact",
                             resample="bilinear", colours=bool(at))
    return MlpBackbone([int(size) for size in sizes.split("x")], processor, seed=seed)


def restore_mlp(folder: Path, facts: dict[str, Any]) -> MlpBackbone:
    """The network that `save` described, its weights still to be filled in."""
    processor = MlpProcessor.restore(folder)
    assert isinstance(processor, MlpProcessor)
    return MlpBackbone(facts["units"], processor, seed=int(facts["seed"]))
