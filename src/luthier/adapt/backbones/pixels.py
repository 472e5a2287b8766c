"""Images shrunk to a few pixels as a backbone: what a linear model can see without any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor

FAMILY = "pixels"
SIDE = 16


def shrunk(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """float32 [side · side · 3], 0 to 1, of an image uint8 [height, width, 3]."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side)), dtype=np.float32).ravel() / 255


@dataclass
class PixelsProcessor(ImageProcessor):
    """Decodes as the base model's processor does, and shrinks when a batch is made."""

    side: int = SIDE

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """`features` float32 [rows, side · side · 3]: finished, so that the backbone is not asked."""
        return {"features": torch.from_numpy(np.stack([shrunk(row.data, self.side) for row in rows]))}


class PixelsBackbone(ImageBackbone):
    """No weights: the processor makes the features, [rows, side · side · 3]."""

    family = FAMILY
    processor: PixelsProcessor  # type: ignore[reportIncompatibleVariableOverride]

    def __init__(self, processor: PixelsProcessor):
        super().__init__()
        self.processor = processor  # type: ignore[reportIncompatibleVariableOverride]
        self.width = 3 * processor.side**2

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["features"]

    def groups(self) -> dict[str, list[str]]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {"width": self.width, "side": self.processor.side}


def shrink(processor: ImageProcessor) -> PixelsBackbone:
    """The backbone over a base model's way of decoding images."""
    kept = {field.name: getattr(processor, field.name) for field in fields(ImageProcessor)}
    return PixelsBackbone(PixelsProcessor(**kept))


def restore_pixels(folder: Path) -> PixelsBackbone:
    """The backbone that `save` described."""
    found = PixelsProcessor.restore(folder)
    assert isinstance(found, PixelsProcessor)
    return PixelsBackbone(found)
