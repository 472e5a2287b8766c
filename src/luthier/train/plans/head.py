"""Only the head learns; the base model stays as it is, so its features are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.plugins import register
from luthier.train.plans import PLANS, Plan


@register(PLANS, "head")
class HeadOnly(Plan):
    """Trains the head on frozen features: seconds instead of minutes, and hard to overfit."""

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        return {groups[-1]: 1.0}
