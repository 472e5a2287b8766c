"""Mixup (Zhang et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.mixes import MIXES

if TYPE_CHECKING:
    import numpy as np
    import torch


@register(MIXES, "mixup")
class Mixup(Spec):
    """Blends every image of a batch with another one of it, and their labels by the same shares."""

    alpha: float = Field(default=0.2, gt=0, le=10)
    """The share comes from Beta(alpha, alpha): small values leave most images nearly as they are, 1 is even."""
    chance: float = Field(default=1.0, ge=0, le=1)
    """Probability that a batch is mixed."""

    def mix(self, pixels: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator
            ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        happens, share, order = rng.random(), float(rng.beta(self.alpha, self.alpha)), rng.permutation(len(pixels))
        if happens >= self.chance:
            return pixels, targets
        other = torch.from_numpy(order).to(pixels.device)
        return torch.lerp(pixels[other], pixels, share), torch.lerp(targets[other], targets, share)
