"""Discriminative learning rates (Howard & Ruder 2018, ULMFiT, section 3.2): lower layers, which hold the most general
knowledge, learn more slowly. `divide_by` 2.6 is theirs; 1 / 0.9 is the layer-wise decay that AutoGluon uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from luthier.plugins import register
from luthier.train.plans import PLANS, Plan, falling


@register(PLANS, "discriminative")
class Discriminative(Plan):
    """Everything learns, each layer group more slowly than the one above it."""

    divide_by: float = Field(default=2.6, ge=1)
    """A group's rate is the rate of the group above divided by this; 2.6 is ULMFiT's, 1.11 a
    layer-wise decay of 0.9."""

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        return falling(groups, self.divide_by)
