"""Random rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS
from luthier.train.augments._geometry import warp

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "rotate")
class Rotate(Spec):
    """Turns an image about its centre by a random angle. Corners are filled with the image's mirror image."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    degrees: float = Field(default=15.0, ge=0, le=180)
    """Largest angle in either direction. 180 where images have no upright side (cells, satellites)."""

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return warp(data, degrees=float(rng.uniform(-self.degrees, self.degrees)))
