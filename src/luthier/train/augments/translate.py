"""Random translation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS
from luthier.train.augments._geometry import warp

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "translate")
class Translate(Spec):
    """Moves an image by a random distance. The uncovered rim is filled with the image's mirror image."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    share: float = Field(default=0.1, ge=0, le=0.9)
    """Largest distance in each direction, as a share of the image's width and height."""

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        right, down = rng.uniform(-self.share, self.share, size=2)
        return warp(data, right=round(float(right) * data.shape[1]), down=round(float(down) * data.shape[0]))
