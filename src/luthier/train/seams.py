"""The seam where regularizers dock: something added to the loss of every update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from luthier.plugins import Seam

if TYPE_CHECKING:
    import torch

    from luthier.adapt.base import Model
    from luthier.train.render import Rendered

REGULARIZERS = Seam("regularizer", package="luthier.train.regularizers")


class Penalty(Protocol):
    """What `bind` returns: called once per update, before its task gradients."""

    def __call__(self) -> torch.Tensor:
        """A scalar in nats, differentiable in the model's trainable parameters."""
        ...


class Regularizer(Protocol):
    """Registered with `@register(REGULARIZERS, "name")` on a Spec; `strength=0` must equal its absence."""

    kind: ClassVar[str]

    def bind(self, model: Model, memory: Sequence[Rendered], objective: Any) -> Penalty:
        """Remember what is needed of the model before training. `memory` are rendered train examples, `objective` the
        training loss (`objective(batch, denominator)`)."""
        ...
