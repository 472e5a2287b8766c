"""Temperature scaling finds the temperature that made the data, and calibration errors equal their definition."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.evaluate.labels.calibrate import (
    COLDEST,
    calibration_error,
    decisions,
    fit_temperature,
    probabilities,
    reliability,
    softmax,
)


def drawn(temperature: float, n: int = 20_000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and targets drawn from the true probabilities."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(n, classes)) * 1.5
    targets = (softmax(true).cumsum(1) > rng.random((n, 1))).argmax(1)
    return true * temperature, targets


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_true_temperature_is_found(temperature: float) -> None:
    logits, targets = drawn(temperature)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (decisions(targets, probabilities(logits, False, t)) for t in (1.0, found))
    assert calibration_error(*after) < 0.015
    assert temperature == 1 or calibration_error(*before) > 3 * calibration_error(*after)
    assert ((probabilities(logits, False, found).argmax(1) == logits.argmax(1)).all())


def test_the_temperature_is_the_minimum_of_the_softened_log_loss() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits, targets = drawn(1.7, n=300)

    def loss(log_t: float) -> float:
        p = softmax(logits / np.exp(log_t))
        wanted = np.full(p.shape, 1 / 302 / 5)  # one row in n + 2 is spread over the classes
        wanted[np.arange(len(p)), targets] += 301 / 302
        return -(wanted * np.log(p)).sum(1).mean()

    wanted = np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    assert fit_temperature(logits, targets) == pytest.approx(wanted, rel=1e-5)


def test_several_labels_share_one_temperature() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=(5000, 4)) * 2 - 1
    targets = rng.random((5000, 4)) < 1 / (1 + np.exp(-true))
    assert fit_temperature(true * 3, targets, multi_label=True) == pytest.approx(3, rel=0.05)


def test_separated_rows_do_not_run_away() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 0.0]])
    found = fit_temperature(logits, np.array([0, 1, 0]))
    assert found > COLDEST and 0.8 < softmax(logits / found)[0, 0] < 0.97
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0
    assert fit_temperature(-logits, np.array([0, 1, 0])) == 100.0


@pytest.mark.parametrize("kind", ["equal_width", "equal_mass"])
def test_the_calibration_error_equals_its_definition(kind: str) -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random(500).round(2)
    hits = (rng.random(500) < confidence**2).astype(float)
    if kind == "equal_width":
        groups = [(confidence > b / 10) & (confidence <= (b + 1) / 10) | ((b == 0) & (confidence == 0))
                  for b in range(10)]
    else:
        order = np.argsort(confidence, kind="stable")
        groups = [np.isin(np.arange(500), part) for part in np.array_split(order, 10)]
    wanted = sum(g.sum() / 500 * abs(confidence[g].mean() - hits[g].mean()) for g in groups if g.any())
    assert calibration_error(confidence, hits, bins=10, kind=kind) == pytest.approx(wanted, abs=1e-12)  # type: ignore[arg-type]
    assert sum(one.n for one in reliability(confidence, hits, bins=10, kind=kind)) == 500  # type: ignore[arg-type]


def test_labels_are_judged_one_by_one() -> None:
    confidence, hits = decisions(np.array([[True, False]]), np.array([[0.9, 0.2]]))
    assert [*confidence] == [0.9, 0.2] and [*hits] == [1, 0]
