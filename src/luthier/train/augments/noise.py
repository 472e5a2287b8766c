"""Random noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "noise")
class Noise(Spec):
    """Adds Gaussian noise to every value, drawn independently, as a sensor in weak light does."""

    reads: ClassVar[Literal["text", "image"]] = "image"

    std: float = Field(default=8.0, ge=0, le=128)
    """Standard deviation in steps of 0 to 255. Values that leave that range are cut off."""

    def apply(self, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import numpy as np

        values = data + rng.standard_normal(data.shape, dtype=np.float32) * np.float32(self.std)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
