"""The learning-rate range test (Smith 2017): one short training with a rising rate shows which rates are useful.

The loss first stands still, then falls, then explodes. A rate well inside the falling part is proposed: the one of
steepest descent, but at most a tenth of the rate at which the loss turns up.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from luthier.errors import ModelError
from luthier.spec import Spec


class RangeTest(Spec):
    """A short training whose learning rate rises exponentially."""

    low: float = Field(default=1e-7, gt=0)
    """First learning rate."""
    high: float = Field(default=1.0, gt=0)
    """Last learning rate."""
    steps: int = Field(default=100, ge=20)
    """Updates; the test ends before when the loss has exploded."""
    explodes_at: float = Field(default=4.0, gt=1)
    """The test ends when the smoothed loss is this many times its lowest."""

    @model_validator(mode="after")
    def _ordered(self) -> RangeTest:
        if self.low >= self.high:
            raise ValueError(f"low must be below high (found {self.low:g} and {self.high:g})")
        return self

    def rates(self) -> list[float]:
        """The learning rate of each update."""
        growth = (self.high / self.low) ** (1 / (self.steps - 1))
        return [self.low * growth**at for at in range(self.steps)]

    def run(self, update: Callable[[float], float]) -> RangeFound:
        """`update(rate)` makes one update with that rate and returns the loss before it; weights are not kept."""
        rates: list[float] = []
        losses: list[float] = []
        lowest = math.inf
        for rate in self.rates():
            loss = update(rate)
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            smooth = _smoothed(losses[-50:])  # the mean forgets what lies further back
            lowest = min(lowest, smooth[-1])
            if len(losses) > 10 and lowest > 0 and smooth[-1] > self.explodes_at * lowest:
                break
        return RangeFound(tuple(rates), tuple(losses), propose_rate(rates, losses))


@dataclass(frozen=True)
class RangeFound:
    """What a range test saw."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Loss before the update with each rate."""
    proposed: float


BETA = 0.9
"""Smoothing of the losses, which come from one batch each."""


def propose_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The peak learning rate that a range test speaks for.

    `rates` rise exponentially; `losses[i]` was measured before the update with `rates[i]`. ModelError when the loss
    never fell: the test then says nothing about the rate.
    """
    pairs = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    if len(pairs) < 10:
        raise ModelError(f"the learning-rate range test has {len(pairs)} usable updates and needs 10; start it at a "
                         "lower rate or give it more updates")
    values = [loss for _, loss in pairs]
    smooth = _smoothed(values)
    turn = min(range(len(smooth)), key=lambda at: smooth[at])
    spread = _spread(values)
    sure = 4 * spread * math.sqrt((1 - BETA) / (1 + BETA))  # four standard errors of the smoothed loss
    start = statistics.fmean(values[:5])
    if turn < 3 or start - smooth[turn] <= sure + 2 * spread / math.sqrt(5):
        raise ModelError(f"the learning-rate range test never lowered the loss (it began at {start:.4g}, the lowest "
                         f"was {smooth[turn]:.4g}, at rate {pairs[turn][0]:.3g}); test other rates, or check the data")
    # Smoothed in both directions, so that the curve is not moved to higher rates; only up to the turn, because what
    # comes after it is many times larger.
    back = _smoothed(values[:turn + 1][::-1])[::-1]
    curve = [(a + b) / 2 for a, b in zip(smooth, back, strict=False)]
    logs = [math.log(rate) for rate, _ in pairs]
    slopes = [(curve[at + 1] - curve[at - 1]) / (logs[at + 1] - logs[at - 1]) for at in range(1, turn)]
    steepest = pairs[1 + min(range(len(slopes)), key=lambda at: slopes[at])][0]
    diverges = smooth[-1] > smooth[turn] + sure
    return min(steepest, pairs[turn][0] / 10) if diverges else steepest


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean, without its bias towards zero at the start."""
    mean, out = 0.0, []
    for at, value in enumerate(values, start=1):
        mean = BETA * mean + (1 - BETA) * value
        out.append(mean / (1 - BETA**at))
    return out


def _spread(values: Sequence[float]) -> float:
    """Standard deviation of a single loss around the curve, from the steps between neighbours (robust)."""
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    return 1.4826 * statistics.median(steps) / math.sqrt(2)
