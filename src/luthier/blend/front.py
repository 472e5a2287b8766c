"""The Pareto front of new skill against old, and its knee.

A point is dominated when another one is at least as good on both axes and better on one. The knee is the point of the
front that lies farthest beyond the chord between the two ends (Das 1999, "On characterizing the knee of the Pareto
curve"; Kneedle, Satopää et al. 2011, takes the same distance). Both axes are scaled so that the ends lie at (0, 1) and
(1, 0): x = (new - new₀) / (new₁ - new₀), y = (old - old₁) / (old₀ - old₁), and the signed distance from the chord
x + y = 1 is (x + y - 1) / √2, positive where the point is better than what the chord trades.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALL = 1e-12


@dataclass(frozen=True)
class Point:
    """One blend, as two figures of which higher is better."""

    share: float
    """a: 0 is where training began, 1 the trained end."""
    new: float
    old: float | None
    """None where nothing old is measured."""


@dataclass(frozen=True)
class Knee:
    """What is proposed, and why."""

    share: float
    distances: tuple[float | None, ...]
    """Of every point from the chord, in units of the scaled axes; None where there is no chord."""
    sentence: str


def dominated(points: Sequence[Point]) -> list[bool]:
    """Whether another point is at least as good on both axes and better on one."""
    return [any(_beats(other, point) for other in points) for point in points]


def _beats(a: Point, b: Point) -> bool:
    old_a, old_b = a.old or 0.0, b.old or 0.0
    return a.new >= b.new and old_a >= old_b and (a.new > b.new or old_a > old_b)


def knee(points: Sequence[Point]) -> Knee:
    """The proposed share. `points` hold the shares 0 and 1.

    Without a trade (nothing old is measured or lost, or nothing new is gained) there is no chord, and the point with
    the most new skill is taken, of equal ones the one with the most old skill. A tie at the knee goes to the larger
    share, the trained model.
    """
    first = next(point for point in points if point.share == 0)
    last = next(point for point in points if point.share == 1)
    gained = last.new - first.new
    lost = None if first.old is None or last.old is None else first.old - last.old
    if lost is None or lost <= SMALL or gained <= SMALL:
        best = max(points, key=lambda point: (point.new, point.old or 0.0, point.share))
        why = ("nothing old is measured" if lost is None else "training gained no new skill" if gained <= SMALL
               else "training lost no old skill")
        return Knee(best.share, tuple(None for _ in points), f"{why}, so the most new skill decides")
    least = last.old or 0.0
    distances = [((point.new - first.new) / gained + ((point.old or 0.0) - least) / lost - 1) / math.sqrt(2)
                 for point in points]
    worse = dominated(points)
    best = max((at for at in range(len(points)) if not worse[at]),
               key=lambda at: (round(distances[at], 9), points[at].share))
    chosen = points[best]
    if distances[best] <= SMALL:
        told = "no blend beats the straight trade between the two ends"
    else:
        kept = ((chosen.old or 0.0) - least) / lost
        told = (f"it keeps {(chosen.new - first.new) / gained:.0%} of the gain in new skill and wins back "
                f"{kept:.0%} of the lost old skill")
    return Knee(chosen.share, tuple(distances), told)
