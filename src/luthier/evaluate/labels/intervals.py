"""Intervals of statistics that are functions of sums over rows: counts, means, curves, calibration errors.

`compare.Bootstrap` draws units (rows, or documents where rows share them); here every draw needs only sums of what
each row adds, so one matrix product gives a statistic on all draws. Precision, recall, F1 and MCC are functions of
counts; ROC-AUC and average precision are not sums, so their intervals use the infinitesimal jackknife (Efron 1982,
ch. 6): the value plus the sum of each row's first-order effect on it, over the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from luthier.evaluate.compare import Bootstrap, Measured, wilson

CHUNK = 16_000_000
"""Most numbers of the draws that are held as floats at once (64 MB)."""


class Sums(NamedTuple):
    """What rows add up to."""

    total: np.ndarray
    """float64 [m], over all rows."""
    draws: np.ndarray
    """float64 [samples, m], over the rows of each draw."""


class Estimate(NamedTuple):
    """A statistic on the data and on every draw."""

    value: float
    draws: np.ndarray
    """float64 [samples]."""
    n: int
    """Rows behind the value."""
    yes_no: bool = False
    """A plain mean of zeros and ones over rows: Wilson's interval holds at 0 and 1 too."""
    centred: bool = False
    """Resampling biases the statistic upwards (a calibration error): its draws are moved onto the value."""
    floor: float | None = None
    """Smallest value that the statistic can have, where the interval could fall below it."""
    ceiling: float | None = None
    """Largest value, where the interval could rise above it."""


class Replicates:
    """Draws shared by everything that is compared, so that differences are paired."""

    def __init__(self, unit_ids: Sequence[str], *, samples: int = 2000, seed: int = 0):
        self.bootstrap = Bootstrap(unit_ids, samples=samples, seed=seed)
        self.samples, self.n = samples, len(unit_ids)
        self._kept: dict[tuple[int, str], tuple[Any, Sums]] = {}

    def sums(self, rows: np.ndarray) -> Sums:
        """Sums of `rows`, [n, m] (or [n]), over the data and over each draw."""
        rows = np.asarray(rows, dtype=np.float64).reshape(self.n, -1)
        units = self.bootstrap.num_units
        by_unit = rows
        if units != self.n:
            by_unit = np.zeros((units, rows.shape[1]))
            np.add.at(by_unit, self.bootstrap.unit, rows)
        counts = self.bootstrap.counts
        # float32 holds counts exactly and means to 1e-6, far finer than an interval; the value itself is float64.
        lean, step = by_unit.astype(np.float32), max(1, CHUNK // max(units, 1))
        parts = [counts[at : at + step].astype(np.float32) @ lean for at in range(0, self.samples, step)]
        return Sums(rows.sum(0), np.concatenate(parts).astype(np.float64))

    def kept(self, owner: Any, name: str, make: Callable[[], np.ndarray]) -> Sums:
        """As `sums`, computed once per owner and name: several metrics read the same counts."""
        key = id(owner), name
        if key not in self._kept:
            self._kept[key] = owner, self.sums(make())  # holds the owner, so that its id stays its own
        return self._kept[key][1]

    def mean(self, values: np.ndarray, weights: np.ndarray | None = None, *,
             finish: Callable[[Any], Any] = lambda mean: mean) -> Estimate:
        """The (weighted) mean of a value per row."""
        values = np.asarray(values, dtype=np.float64)
        if weights is None and self.bootstrap.num_units == self.n:
            found = self.sums(values)
            yes_no = bool(np.isin(values, (0.0, 1.0)).all())
            return Estimate(float(finish(found.total[0] / self.n)), finish(found.draws[:, 0] / self.n), self.n, yes_no)
        weights = np.ones(self.n) if weights is None else np.asarray(weights, dtype=np.float64)
        found = self.sums(np.stack([values * weights, weights], 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return Estimate(float(finish(found.total[0] / found.total[1])),
                            finish(found.draws[:, 0] / found.draws[:, 1]), self.n)

    def linear(self, value: float, effects: np.ndarray) -> Estimate:
        """A smooth share of one (an area under a curve) by its rows' first-order effects, [n], which sum to zero over
        the data; the line that they draw may leave 0 to 1, the interval may not."""
        return Estimate(value, value + self.sums(effects).draws[:, 0], self.n, floor=0.0, ceiling=1.0)

    def measured(self, one: Estimate) -> Measured:
        """The value with its 95 % interval."""
        units = self.bootstrap.num_units
        if one.yes_no and units >= 2:
            found = self.bootstrap._interval(one.value, one.draws, units, one.n)
            if units == one.n or found.low == found.high:
                return Measured(one.value, *wilson(one.value, units), one.n)
        draws = one.draws
        if one.centred and len(draws):
            draws = draws - np.nanmean(draws) + one.value
        found = self.bootstrap._interval(one.value, draws, units, one.n)
        low, high = found.low, found.high
        if low is not None and one.floor is not None:
            low = max(low, one.floor)
        if high is not None and one.ceiling is not None:
            high = min(high, one.ceiling)
        return Measured(found.value, low, high, found.n)

    def difference(self, one: Estimate, against: Estimate) -> Measured:
        """`one` minus `against`, draw by draw."""
        draws = one.draws - against.draws
        if (one.centred or against.centred) and len(draws):
            draws = draws - np.nanmean(draws) + (one.value - against.value)
        return self.bootstrap._interval(one.value - against.value, draws, self.bootstrap.num_units,
                                        min(one.n, against.n))
