"""Random brightness, contrast, saturation and tint."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS

if TYPE_CHECKING:
    import numpy as np

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@register(AUGMENTS, "colour")
class Colour(Spec):
    """Changes light and colour as another camera, lamp or stain would."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    brightness: float = Field(default=0.2, ge=0, le=1)
    """Values are multiplied by a factor from 1 - brightness to 1 + brightness."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """Distances from the image's mean grey are multiplied by a factor from 1 - contrast to 1 + contrast."""
    saturation: float = Field(default=0.2, ge=0, le=1)
    """Distances from each pixel's grey are multiplied by a factor from 1 - saturation to 1 + saturation."""
    tint: float = Field(default=0.0, ge=0, le=1)
    """Each channel is multiplied by its own factor from 1 - tint to 1 + tint."""

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import numpy as np

        draws = rng.uniform(-1, 1, size=6).astype(np.float32)
        strengths = np.array([self.brightness, self.contrast, self.saturation], dtype=np.float32)
        light, contrast, saturation = 1 + draws[:3] * strengths
        values = data.astype(np.float32) * light
        luma = np.array(LUMA, dtype=np.float32)
        mean = float((values @ luma).mean())
        values = mean + (values - mean) * contrast
        grey = (values @ luma)[..., None]
        values = (grey + (values - grey) * saturation) * (1 + draws[3:] * np.float32(self.tint))
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
