"""CutMix (Yun et al. 2019)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.mixes import MIXES

if TYPE_CHECKING:
    import numpy as np
    import torch


@register(MIXES, "cutmix")
class Cutmix(Spec):
    """Pastes a rectangle of another image of the batch into every image; labels are shared by area."""

    alpha: float = Field(default=1.0, gt=0, le=10)
    """The area that stays comes from Beta(alpha, alpha): 1 is even, small values paste nearly nothing or all."""
    chance: float = Field(default=0.5, ge=0, le=1)
    """Probability that a batch is mixed."""

    def mix(self, pixels: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator
            ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        happens, share, order = rng.random(), float(rng.beta(self.alpha, self.alpha)), rng.permutation(len(pixels))
        across, down = rng.random(2)
        if happens >= self.chance:
            return pixels, targets
        height, width = pixels.shape[2:]
        top, bottom = _cut(height, down, math.sqrt(1 - share))
        left, right = _cut(width, across, math.sqrt(1 - share))
        other = torch.from_numpy(order).to(pixels.device)
        mixed = pixels.clone()
        mixed[:, :, top:bottom, left:right] = pixels[other, :, top:bottom, left:right]
        stays = 1 - (bottom - top) * (right - left) / (height * width)  # the true area: the rectangle may be cut off
        return mixed, torch.lerp(targets[other], targets, stays)


def _cut(side: int, centre: float, share: float) -> tuple[int, int]:
    middle, half = int(centre * side), share * side / 2
    return max(round(middle - half), 0), min(round(middle + half), side)
