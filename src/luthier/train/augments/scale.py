"""Random scaling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS
from luthier.train.augments._geometry import warp

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "scale")
class Scale(Spec):
    """Enlarges or shrinks an image about its centre by a random factor, drawn evenly on a logarithmic scale."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    smallest: float = Field(default=0.8, gt=0.3, le=3)
    """Smallest factor; below 1 the image shrinks and its mirror image fills the rim."""
    largest: float = Field(default=1.25, gt=0.3, le=3)
    """Largest factor; above 1 the rim is cut away."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is above largest ({self.largest})")
        return self

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return warp(data, zoom=math.exp(rng.uniform(math.log(self.smallest), math.log(self.largest))))
