"""Figures of the matrix R against the papers' formulas, examples by hand, and resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.evaluate import forgetting as f
from luthier.evaluate.labels.intervals import Replicates

R = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.9, 0.7]])
START = np.array([0.1, 0.1, 0.2])


def papers(matrix: np.ndarray, start: np.ndarray) -> dict[str, float]:
    """The formulas as they are printed, with 1-based sums written out. GEM, equations 2 to 4; Chaudhry 2018, eq. 3."""
    T = len(matrix)
    lost = [max(matrix[k][j] for k in range(T - 1)) - matrix[T - 1][j] for j in range(T - 1)]
    return {
        "average_accuracy": sum(matrix[T - 1][i] for i in range(T)) / T,
        "backward_transfer": sum(matrix[T - 1][i] - matrix[i][i] for i in range(T - 1)) / (T - 1),
        "forward_transfer": sum(matrix[i - 1][i] - start[i] for i in range(1, T)) / (T - 1),
        "forgetting": sum(lost) / (T - 1), "plasticity": sum(matrix[i][i] for i in range(T)) / T}


def test_a_hand_made_matrix() -> None:
    found = {name: float(value) for name, value in f.figures(R, START).items()}
    assert found == pytest.approx({
        "average_accuracy": 0.7, "backward_transfer": (-0.4 + 0.1) / 2, "forward_transfer": (0.1 + 0.1) / 2,
        "forgetting": (0.4 - 0.1) / 2, "plasticity": 0.8})


def test_random_matrices_follow_the_papers_also_in_stacks() -> None:
    rng = np.random.default_rng(0)
    stack, starts = rng.random((7, 5, 5)), rng.random((7, 5))
    found = f.figures(stack, starts)
    for at in range(7):
        assert {name: value[at] for name, value in found.items()} == pytest.approx(papers(stack[at], starts[at]))


def test_forgetting_is_at_least_the_loss_since_learning() -> None:
    stack = np.random.default_rng(1).random((50, 4, 4))
    assert np.all(f.forgetting(stack) >= -f.backward_transfer(stack) - 1e-12)


def test_scores_that_do_not_exist_are_not_made_up() -> None:
    lower = np.where(np.tril(np.ones((3, 3))) > 0, R, np.nan)
    found = f.figures(lower, START)
    assert np.isnan(found["forward_transfer"]), "a task without outputs has no score before its turn"
    assert found["forgetting"] == pytest.approx((0.4 - 0.1) / 2) and np.isnan(f.forward_transfer(R, None))
    alone = f.figures(np.array([[0.8]]), np.array([0.1]))
    assert np.isnan(alone["backward_transfer"]) and np.isnan(alone["forgetting"])
    assert alone["average_accuracy"] == alone["plasticity"] == 0.8
    with pytest.raises(ValueError, match=r"\[\.\.\., tasks, tasks\]"):
        f.figures(np.zeros((2, 3)))


def test_the_recovered_share_is_0_for_naive_and_1_for_joint() -> None:
    assert f.recovered_share(method=0.5, naive=0.5, joint=0.9) == 0
    assert f.recovered_share(method=0.9, naive=0.5, joint=0.9) == 1
    assert f.recovered_share(method=0.7, naive=0.5, joint=0.9) == pytest.approx(0.5)
    assert np.isnan(f.recovered_share(method=0.7, naive=0.9, joint=0.9))


def test_over_seeds_is_students_interval() -> None:
    from scipy import stats

    rng = np.random.default_rng(2)
    runs = [f.OneRun(rng.random((3, 3)), rng.random(3)) for _ in range(4)]
    found = f.over_seeds(runs)
    for name in f.FIGURES:
        values = [papers(run.matrix, run.start)[name] for run in runs]  # type: ignore[arg-type]
        low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx(
            (np.mean(values), low, high), abs=1e-3)
    assert "forward_transfer" not in f.over_seeds([f.OneRun(R), f.OneRun(R)])
    assert f.over_seeds([f.OneRun(R)])["forgetting"].low is None


def test_the_recovered_share_over_seeds_covers_the_truth() -> None:
    """The delta interval holds the true ratio about 95 times in 100."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(400):
        noise = rng.normal(0, 0.01, (3, 8))
        found = f.recovered_over_seeds(0.7 + noise[0], 0.5 + noise[1], 0.9 + noise[2])
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low <= 0.5 <= found.high
    assert 365 <= inside <= 395
    assert f.recovered_over_seeds([0.5], [0.6], [0.6]) is None


def made_rows(seed: int = 0, n: int = 240) -> f.Rows:
    rng = np.random.default_rng(seed)
    tasks = rng.integers(0, 3, n)
    right = (rng.random((3, n)) < R[:, tasks]).astype(float)
    return f.Rows(right, tasks, (rng.random(n) < START[tasks]).astype(float))


def test_over_rows_is_the_bootstrap_of_the_figures() -> None:
    rows = made_rows()
    draws = Replicates([str(at) for at in range(240)], samples=400, seed=5)
    found = f.over_rows(rows, draws)

    def by_hand(places: np.ndarray) -> dict[str, float]:
        matrix = np.array([[rows.right[i][places][rows.tasks[places] == j].mean() for j in range(3)] for i in range(3)])
        assert rows.start is not None
        return papers(matrix, np.array([rows.start[places][rows.tasks[places] == j].mean() for j in range(3)]))

    drawn = [by_hand(np.repeat(np.arange(240), counts)) for counts in draws.bootstrap.counts]
    whole = by_hand(np.arange(240))
    for name in f.FIGURES:
        values = [one[name] for one in drawn]
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name].value == pytest.approx(whole[name])
        assert found[name].low == pytest.approx(low, abs=2e-3) and found[name].high == pytest.approx(high, abs=2e-3)


def test_rows_without_outputs_leave_holes() -> None:
    rows = made_rows()
    right = rows.right.copy()
    right[0, rows.tasks == 2] = np.nan
    draws = Replicates([str(at) for at in range(240)], samples=50)
    matrix, start = f.matrix_draws(f.Rows(right, rows.tasks), draws)
    assert np.isnan(matrix.value[0, 2]) and np.isfinite(np.delete(matrix.value.ravel(), 2)).all() and start is None
    assert np.isnan(matrix.draws[:, 0, 2]).all()


def test_the_recovered_share_over_rows() -> None:
    naive, rng = made_rows(1), np.random.default_rng(9)
    draws = Replicates([str(at) for at in range(240)], samples=300)
    joint = (rng.random(240) < 0.95).astype(float)
    same = f.recovered_over_rows(naive, naive, joint, draws)
    assert same is not None and same.value == 0 and same.low == 0
    better = f.Rows(np.maximum(naive.right, joint[None] * (rng.random(240) < 0.5)), naive.tasks)
    found = f.recovered_over_rows(better, naive, joint, draws)
    assert found is not None and found.low is not None and found.high is not None
    assert 0 < found.low < found.value < found.high < 1
