"""Random erasing (Zhong et al. 2017)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "erase")
class Erase(Spec):
    """Fills a random rectangle with the image's mean colour, so that no single spot decides alone."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    chance: float = Field(default=0.5, ge=0, le=1)
    """Probability that an image loses a rectangle."""
    smallest: float = Field(default=0.02, gt=0, le=1)
    """Smallest area, as a share of the image."""
    largest: float = Field(default=0.2, gt=0, le=1)
    """Largest area, as a share of the image."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is above largest ({self.largest})")
        return self

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import numpy as np

        happens, area, aspect, top, left = rng.random(5)
        kept = data.copy()
        if happens >= self.chance:
            return kept
        height, width = data.shape[:2]
        area = (self.smallest + area * (self.largest - self.smallest)) * height * width
        ratio = math.exp((2 * aspect - 1) * math.log(3))  # height : width from 1:3 to 3:1
        high = min(max(round(math.sqrt(area * ratio)), 1), height)
        wide = min(max(round(area / high), 1), width)
        y, x = int(top * (height - high + 1)), int(left * (width - wide + 1))
        kept[y:y + high, x:x + wide] = np.rint(data.mean(axis=(0, 1))).astype(np.uint8)
        return kept
