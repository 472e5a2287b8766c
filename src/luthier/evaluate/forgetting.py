"""What a model keeps and gains while it learns tasks one after another: figures of the matrix R[i, j], the score on
task j after learning task i (T tasks, in the order learned).

Average accuracy, backward and forward transfer: Lopez-Paz & Ranzato 2017 (GEM), equations 2 to 4. Forgetting: Chaudhry
et al. 2018 (Riemannian walk), equation 3 and section 3. Plasticity, the mean of the diagonal, is the learning accuracy
of Riemer et al. 2019. The recovered share places a method between training that protects nothing (naive) and training
on all tasks at once (joint).

Scores are shares: higher is better. All functions take R as [..., T, T], so that draws of a bootstrap go through at
once, and NaN where a score does not exist (no output yet for the task's classes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from luthier.evaluate.compare import Measured, student_quantile
from luthier.evaluate.labels.intervals import Estimate, Replicates

FIGURES = ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "plasticity")


def average_accuracy(matrix: np.ndarray) -> np.ndarray:
    """ACC = 1/T · sum over j of R[T-1, j]. [...]"""
    return _checked(matrix)[..., -1, :].mean(-1)


def backward_transfer(matrix: np.ndarray) -> np.ndarray:
    """BWT = 1/(T-1) · sum over j < T-1 of R[T-1, j] - R[j, j]: below 0 something was forgotten. NaN for one task.
    [...]"""
    matrix = _checked(matrix)
    return _mean((matrix[..., -1, :] - matrix.diagonal(axis1=-2, axis2=-1))[..., :-1])


def forward_transfer(matrix: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """FWT = 1/(T-1) · sum over j > 0 of R[j-1, j] - start[j], where `start` [..., T] are the scores before the first
    task (GEM: of random weights). NaN for one task, without a start, or where tasks are asked about before they have
    outputs. [...]"""
    matrix = _checked(matrix)
    if start is None:
        return np.full(matrix.shape[:-2], np.nan)
    before = matrix.diagonal(offset=1, axis1=-2, axis2=-1)  # R[j-1, j]
    return _mean(before - np.asarray(start, dtype=np.float64)[..., 1:])


def forgetting(matrix: np.ndarray) -> np.ndarray:
    """F = 1/(T-1) · sum over j < T-1 of max over l < T-1 of R[l, j] - R[T-1, j]: what was lost of the best score that a
    task ever had. NaN for one task. [...]"""
    matrix = _checked(matrix)
    if matrix.shape[-1] < 2:
        return np.full(matrix.shape[:-2], np.nan)
    earlier = np.where(np.isnan(matrix[..., :-1, :]), -np.inf, matrix[..., :-1, :]).max(-2)
    return _mean((earlier - matrix[..., -1, :])[..., :-1])


def plasticity(matrix: np.ndarray) -> np.ndarray:
    """1/T · sum over j of R[j, j]: how well each task was learned when its turn came. [...]"""
    return _checked(matrix).diagonal(axis1=-2, axis2=-1).mean(-1)


def recovered_share(*, method: np.ndarray | float, naive: np.ndarray | float, joint: np.ndarray | float) -> np.ndarray:
    """(method - naive) / (joint - naive), of final scores: 0 protects as little as naive training, 1 as much as joint
    training. NaN where joint is no better than naive. [...]"""
    gap = np.asarray(joint, dtype=np.float64) - naive
    gain = np.asarray(method, dtype=np.float64) - naive
    return np.divide(gain, gap, out=np.full(np.broadcast(gain, gap).shape, np.nan), where=gap > 0)


def figures(matrix: np.ndarray, start: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All figures of one matrix, or of a stack of them, by name."""
    return {"average_accuracy": average_accuracy(matrix), "backward_transfer": backward_transfer(matrix),
            "forward_transfer": forward_transfer(matrix, start), "forgetting": forgetting(matrix),
            "plasticity": plasticity(matrix)}


def _checked(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise ValueError(f"R must be [..., tasks, tasks], found the shape {matrix.shape}")
    return matrix


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis; NaN where it is empty."""
    return values.mean(-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


class OneRun(NamedTuple):
    """A run's matrix, and what came before its first task."""

    matrix: np.ndarray
    """float64 [T, T]"""
    start: np.ndarray | None = None
    """float64 [T]"""


def over_seeds(runs: Sequence[OneRun]) -> dict[str, Measured]:
    """Every figure as its mean over runs with other seeds, with Student's 95 % interval; figures that do not exist are
    left out."""
    each = [figures(np.asarray(run.matrix, dtype=float),
                    None if run.start is None else np.asarray(run.start, dtype=float)) for run in runs]
    found = {name: np.array([float(one[name]) for one in each]) for name in FIGURES}
    return {name: mean_over_seeds(values) for name, values in found.items() if np.isfinite(values).all()}


def mean_over_seeds(values: Sequence[float] | np.ndarray) -> Measured:
    """Mean with Student's 95 % interval; one value has none."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Measured(mean, None, None, n)
    half = student_quantile(0.975, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Measured(mean, mean - half, mean + half, n)


def recovered_over_seeds(method: Sequence[float], naive: Sequence[float], joint: Sequence[float]) -> Measured | None:
    """The recovered share of the means over seeds (the same seeds in the same order), with a 95 % interval by the delta
    method for a ratio of paired means: each seed's effect is (m - n - share · (j - n)) / (mean j - mean n). None where
    joint training is no better than naive training."""
    m, n, j = (np.asarray(values, dtype=np.float64) for values in (method, naive, joint))
    gap = float(j.mean() - n.mean())
    if not gap > 0:
        return None
    share = float((m.mean() - n.mean()) / gap)
    effects = mean_over_seeds(((m - n) - share * (j - n)) / gap)
    half = None if effects.high is None else effects.high - effects.value
    return Measured(share, None if half is None else share - half, None if half is None else share + half, len(m))


class Rows(NamedTuple):
    """A run's answers, row by row."""

    right: np.ndarray
    """float64 [stages, rows]: 1 right, 0 wrong, NaN where the stage's model has no output for the row's task; stage i
    has just learned task i."""
    tasks: np.ndarray
    """int [rows]: the task of each row."""
    start: np.ndarray | None = None
    """float64 [rows]: the same before the first task."""


class Drawn(NamedTuple):
    """An array on the data, and on every draw (one axis more, in front)."""

    value: np.ndarray
    draws: np.ndarray


def matrix_draws(rows: Rows, draws: Replicates) -> tuple[Drawn, Drawn | None]:
    """R [T, T], and the start [T] where there is one, on the data and on every bootstrap draw of rows."""
    num = len(rows.right)
    member = (rows.tasks[:, None] == np.arange(num)).astype(np.float64)
    stages = rows.right if rows.start is None else np.concatenate([rows.right, rows.start[None]])
    known = np.isfinite(stages)
    each = np.where(known, stages, 0.0)
    columns = [member, *(each[at][:, None] * member for at in range(len(stages)))]
    sums = draws.sums(np.concatenate(columns, 1))
    alive = np.array([[known[at][rows.tasks == task].all() and (rows.tasks == task).any() for task in range(num)]
                      for at in range(len(stages))])

    def means(values: np.ndarray) -> np.ndarray:
        parts = values.reshape(*values.shape[:-1], len(stages) + 1, num)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = parts[..., 1:, :] / parts[..., :1, :]
        return np.where(alive, found, np.nan)

    whole, drawn = means(sums.total), means(sums.draws)
    matrix = Drawn(whole[:num], drawn[:, :num])
    return matrix, None if rows.start is None else Drawn(whole[num], drawn[:, num])


def over_rows(rows: Rows, draws: Replicates) -> dict[str, Measured]:
    """Every figure with a bootstrap interval over rows (or what `draws` resamples as a whole); figures that do not
    exist are left out. The interval speaks about other rows for this run, not about other runs."""
    matrix, start = matrix_draws(rows, draws)
    value = figures(matrix.value, None if start is None else start.value)
    spread = figures(matrix.draws, None if start is None else start.draws)
    return {name: draws.measured(Estimate(float(value[name]), spread[name], len(rows.tasks)))
            for name in FIGURES if np.isfinite(value[name])}


def recovered_over_rows(method: Rows, naive: Rows, joint: np.ndarray, draws: Replicates) -> Measured | None:
    """The recovered share of final average accuracies on the same rows; `joint` float64 [rows] are the right answers of
    joint training. None where joint training is no better than naive training."""
    last = {"method": matrix_draws(method, draws)[0], "naive": matrix_draws(naive, draws)[0],
            "joint": matrix_draws(Rows(np.repeat(joint[None], len(method.right), 0), method.tasks), draws)[0]}
    value = float(recovered_share(**{name: average_accuracy(one.value) for name, one in last.items()}))
    spread = recovered_share(**{name: average_accuracy(one.draws) for name, one in last.items()})
    return draws.measured(Estimate(value, spread, len(joint))) if np.isfinite(value) else None
