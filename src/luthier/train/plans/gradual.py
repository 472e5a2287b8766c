"""Gradual unfreezing (Howard & Ruder 2018, ULMFiT, section 3.3): the head first, then one layer group after the other
from the top, so that the pretrained layers are not shaken by a head that knows nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from luthier.plugins import register
from luthier.train.plans import PLANS, Plan, falling


@register(PLANS, "gradual")
class Gradual(Plan):
    """The head learns first; layer groups join from the top, by epoch or when validation stops improving."""

    when: Literal["epoch", "plateau"] = "epoch"
    """`epoch`: the next group joins every `every` epochs; `plateau`: after `every` validations without a new best."""
    every: float = Field(default=1.0, gt=0)
    """Epochs (parts are possible), or validations without a new best, until the next group joins."""
    divide_by: float = Field(default=2.6, ge=1)
    """A group's rate is the rate of the group above divided by this."""
    groups_at_once: int = Field(default=1, ge=1)
    """Layer groups that join together."""
    lowest: int = Field(default=0, ge=0)
    """Layer groups at the bottom that stay frozen for good, such as 1 for the embeddings."""

    def phases(self, groups: Sequence[str]) -> int:
        joining = max(0, len(groups) - 1 - self.lowest)
        return 1 + -(-joining // self.groups_at_once)

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        open_ = min(1 + phase * self.groups_at_once, max(1, len(groups) - self.lowest))
        rates = falling(groups, self.divide_by)
        return {group: rates[group] for group in groups[-open_:]}

    def ends(self, phase: int, *, epochs: float, misses: int | None) -> bool:
        if self.when == "epoch":
            return epochs >= self.every - 1e-9
        return misses is not None and misses >= self.every
