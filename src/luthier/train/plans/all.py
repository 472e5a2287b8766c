"""All layers learn at one rate, from the first update on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.plugins import register
from luthier.train.plans import PLANS, Plan


@register(PLANS, "all")
class All(Plan):
    """Everything that may train learns at the same rate."""

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        return dict.fromkeys(groups, 1.0)
