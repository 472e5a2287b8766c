"""Intervals: a paired percentile bootstrap over questions, or over documents where questions share them.

Efron & Tibshirani (1993, ch. 13) for the percentile interval, Davison & Hinkley (1997, §3.8) for resampling whole
clusters, Hesterberg (2015, §5.2) for widening the percentiles in small samples (the plain percentile interval of a
mean is too short by a factor of about sqrt((n-1)/n) · z/t; with 10 units it holds 95 % only nine times in ten).
Every metric and system of a comparison is resampled with the same draws, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from luthier.types import Example

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
FEW_UNITS = 10
"""Fewer documents than this are too few to resample: intervals then speak about these documents only."""


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval; `low` and `high` are None where there are fewer than two units."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Number of questions that have a value."""

    def dump(self) -> dict[str, Any]:
        return {"value": _tidy(self.value), "low": _tidy(self.low), "high": _tidy(self.high), "n": self.n}

    @property
    def sign(self) -> Literal[-1, 0, 1]:
        """1 or -1 when the interval lies wholly above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def _tidy(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


class Units(NamedTuple):
    """What is resampled as a whole."""

    name: Literal["question", "passage", "document"]
    ids: tuple[str, ...]
    """The unit of each example, in order."""


def units(examples: Sequence[Example]) -> Units:
    """Documents where questions share documents, else passages where they share passages, else questions.

    A level with fewer than `FEW_UNITS` units is passed over: a bootstrap over three documents has no meaning, so the
    intervals then hold for questions about these documents, not for new documents.
    """
    documents = [example.origin.documents[0] if example.origin.documents else f"question:{example.id}"
                 for example in examples]
    passages = [example.origin.passages[0] if example.origin.passages else f"question:{example.id}"
                for example in examples]
    if FEW_UNITS <= len(set(documents)) < len(examples):
        return Units("document", tuple(documents))
    if FEW_UNITS <= len(set(passages)) < len(examples):
        return Units("passage", tuple(passages))
    return Units("question", tuple(example.id for example in examples))


class Column(NamedTuple):
    """One metric of one system: a value per example (None = not applicable), its weight, and the final transform."""

    values: Sequence[float | None]
    weights: Sequence[float] | None = None
    finish: Callable[[Any], Any] | None = None


class Bootstrap:
    """Draws of units with replacement, made once and shared by everything that is compared."""

    def __init__(self, unit_ids: Sequence[str], *, samples: int = 2000, seed: int = 0):
        import numpy as np

        names = {name: i for i, name in enumerate(dict.fromkeys(unit_ids))}
        self.unit = np.array([names[name] for name in unit_ids], dtype=np.int64)
        self.num_units = len(names)
        kind = np.uint16 if self.num_units < 65_000 else np.uint32
        rng = np.random.default_rng(seed)
        share = np.full(self.num_units, 1 / max(self.num_units, 1))
        chunk = max(1, 4_000_000 // max(self.num_units, 1))
        parts = [rng.multinomial(self.num_units, share, size=min(chunk, samples - at)).astype(kind)
                 for at in range(0, samples, chunk)] if self.num_units else []
        self.counts: np.ndarray = np.concatenate(parts) if parts else np.zeros((samples, 0), kind)
        """How often each unit was drawn, [samples, units]."""

    def measure(self, column: Column) -> Measured | None:
        """The weighted mean of the values that exist, with its interval; None when none exists."""
        import numpy as np

        keep = np.array([value is not None for value in column.values], dtype=bool)
        if not keep.any():
            return None
        value, draws, num = self._replicate(column, keep)
        measured = self._interval(value, draws, num, int(keep.sum()))
        if num >= 2 and len({*(column.weights or (1.0,))}) == 1 and column.finish is None:
            yes_or_no = {one for one in column.values if one is not None} <= {0.0, 1.0}
            if yes_or_no and (num == measured.n or measured.low == measured.high):
                # 4 of 4 is no proof of 100 %: a resampled share cannot leave 0 or 1, Wilson's interval can.
                return Measured(value, *wilson(value, num), measured.n)
        return measured

    def difference(self, column: Column, against: Column, *, relative: bool = False) -> Measured | None:
        """`column` minus `against` on the examples that have both; `relative` divides by `against`."""
        import numpy as np

        keep = np.array([a is not None and b is not None for a, b in zip(column.values, against.values, strict=True)],
                        dtype=bool)
        if not keep.any():
            return None
        mine, my_draws, num = self._replicate(column, keep)
        theirs, their_draws, _ = self._replicate(against, keep)
        scale, scales = (theirs, their_draws) if relative else (1.0, 1.0)
        return self._interval((mine - theirs) / scale, (my_draws - their_draws) / scales, num, int(keep.sum()))

    def _replicate(self, column: Column, keep: np.ndarray) -> tuple[float, np.ndarray, int]:
        """Value of the statistic on the data and on every draw, and the number of units that have data."""
        import numpy as np

        values = np.array([0.0 if value is None else value for value in column.values], dtype=np.float64)
        weights = np.ones(len(values)) if column.weights is None else np.asarray(column.weights, dtype=np.float64)
        weights = np.where(keep, weights, 0.0)
        top = np.bincount(self.unit, weights=weights * values, minlength=self.num_units)
        bottom = np.bincount(self.unit, weights=weights, minlength=self.num_units)
        present = np.bincount(self.unit, weights=keep, minlength=self.num_units) > 0
        tops, bottoms = self.counts @ top, self.counts @ bottom
        finish = column.finish or (lambda mean: mean)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(finish(top.sum() / bottom.sum())), finish(tops / bottoms), int(present.sum())

    def _interval(self, value: float, draws: np.ndarray, num_units: int, n: int) -> Measured:
        import numpy as np

        if num_units < 2:
            return Measured(value, None, None, n)
        tail = _tail(num_units)
        low, high = np.nanquantile(draws, [tail, 1 - tail])
        return Measured(value, float(low), float(high), n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's (1927) interval of a share seen in n trials."""
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2)
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def _tail(num_units: int) -> float:
    """Hesterberg's widened tail: the normal probability beyond sqrt(n/(n-1)) · t, instead of 0.025."""
    t = student_quantile(1 - (1 - CONFIDENCE) / 2, num_units - 1)
    return NormalDist().cdf(-math.sqrt(num_units / (num_units - 1)) * t)


@lru_cache(maxsize=1024)
def student_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t: its density integrated over angles, x = sqrt(freedom) · tan(angle). Within 1e-4."""
    import numpy as np

    angles = np.linspace(0, math.pi / 2, 200_001)[:-1]
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(abs(share - 0.5) * 2, mass / mass[-1], angles)
    return math.copysign(math.sqrt(freedom) * math.tan(angle), share - 0.5)


def needed_questions(difference: Measured, effect: float, *, power: float = 0.8) -> int | None:
    """How many questions would show a true difference of `effect` with the given power, from the observed interval.

    n · ((z(0.975) + z(power)) · standard error / effect)², the standard error being the interval's width over 2 · 1.96.
    """
    if difference.low is None or difference.high is None or effect <= 0:
        return None
    z = NormalDist().inv_cdf
    error = (difference.high - difference.low) / (2 * z(1 - (1 - CONFIDENCE) / 2))
    return max(difference.n, math.ceil(difference.n * ((z(1 - (1 - CONFIDENCE) / 2) + z(power)) * error / effect) ** 2))
