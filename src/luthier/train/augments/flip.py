"""Random mirroring."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "flip")
class Flip(Spec):
    """Mirrors an image. Not for classes that differ by handedness, such as letters or traffic signs."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    horizontal: float = Field(default=0.5, ge=0, le=1)
    """Probability that left and right are exchanged."""
    vertical: float = Field(default=0.0, ge=0, le=1)
    """Probability that top and bottom are exchanged."""

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        across, over = rng.random(2)
        if across < self.horizontal:
            data = data[:, ::-1]
        if over < self.vertical:
            data = data[::-1]
        return data.copy()
