"""Mixes: two training images become one, and their labels become shares. One file a method.

They are applied to a training batch after its rows were augmented, and never touch validation or test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from luthier.plugins import Seam

if TYPE_CHECKING:
    import numpy as np
    import torch

MIXES = Seam("mix", package="luthier.train.mixes")


@runtime_checkable
class Mix(Protocol):
    """Registered with `@register(MIXES, "name")` on a Spec."""

    kind: ClassVar[str]

    def dump(self) -> dict[str, Any]:
        """JSON-ready fields, as every Spec has."""
        ...

    def mix(self, pixels: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator
            ) -> tuple[torch.Tensor, torch.Tensor]:
        """Float [rows, 3, h, w] and float [rows, classes] (one-hot, several classes or soft) to new tensors of the
        same shapes; the inputs stay as they are. A batch of one row comes back unchanged."""
        ...
