"""The plan seam: which layer groups learn, how fast, and when the next ones join. One file each.

A plan has phases. In a phase every group has a factor of the learning rate; a group without one is frozen. A plan only
says so: `luthier.train.streams.planned` carries it out between updates, and the contract (point 9) watches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.plugins import Seam
from luthier.spec import Spec

PLANS = Seam("plan", package="luthier.train.plans")


class Plan(Spec):
    """Base of every plan. `groups` are the names of the layer groups, bottom first, the head last."""

    def phases(self, groups: Sequence[str]) -> int:
        """How many phases there are, at least 1."""
        return 1

    def factors(self, groups: Sequence[str], phase: int) -> Mapping[str, float]:
        """Learning-rate factor by group in a phase (from 0); groups that are left out, or have 0, are frozen."""
        raise NotImplementedError(f"plan '{self.kind}' must define factors()")

    def ends(self, phase: int, *, epochs: float, misses: int | None) -> bool:
        """Whether a phase that is not the last one ends now: `epochs` passed in it, `misses` validations without a new
        best (None: none was measured after this update)."""
        return False


def trained(plan: Plan, groups: Sequence[str]) -> frozenset[str]:
    """Groups that learn in any phase."""
    return frozenset(group for phase in range(plan.phases(groups)) for group, factor
                     in plan.factors(groups, phase).items() if factor > 0)


def falling(groups: Sequence[str], divide_by: float) -> dict[str, float]:
    """1 for the uppermost group, and `divide_by` times less for each one further down."""
    return {group: divide_by ** -depth for depth, group in enumerate(reversed(groups))}
