"""First the head, then everything at a fraction of the rate (fastai's `fine_tune`; Kumar et al. 2022, LP-FT, show that
it distorts pretrained features less than training all at once)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from luthier.plugins import register
from luthier.train.plans import PLANS, Plan, falling


@register(PLANS, "two_phase")
class TwoPhase(Plan):
    """The head alone at first, then all layers at a tenth of the rate."""

    head_epochs: float = Field(default=1.0, gt=0)
    """Epochs in which only the head learns."""
    factor: float = Field(default=0.1, gt=0, le=1)
    """Part of the learning rate in the second phase."""
    divide_by: float = Field(default=1.0, ge=1)
    """In the second phase a group's rate is the rate of the group above divided by this; 1: all learn alike."""

    def phases(self, groups: Sequence[str]) -> int:
        return 2 if len(groups) > 1 else 1

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        if phase == 0:
            return {groups[-1]: 1.0}
        return {group: self.factor * rate for group, rate in falling(groups, self.divide_by).items()}

    def ends(self, phase: int, *, epochs: float, misses: int | None) -> bool:
        return epochs >= self.head_epochs - 1e-9
