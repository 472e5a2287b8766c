"""Thresholds cost least, abstention curves say what they promise, and foreign inputs are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.evaluate.labels import thresholds
from luthier.evaluate.labels.base import Costs
from luthier.evaluate.labels.calibrate import softmax


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.5), st.integers(1, 3))
def test_no_other_threshold_is_cheaper(seed: int, abstain: float, digits: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(25).round(digits)
    hits = (rng.random(25) < confidence).astype(float)
    costs = Costs(abstain=abstain, false_positive=0.3 + abstain)
    found = thresholds.fit_abstain(confidence, hits, costs)
    tried = [thresholds.abstain_cost(confidence, hits, t, costs) for t in np.linspace(0, 1.01, 203)]
    assert thresholds.abstain_cost(confidence, hits, found.threshold, costs) == pytest.approx(found.cost)
    assert found.cost <= min(tried) + 1e-9
    right = hits > 0
    yes = thresholds.fit_yes_no(right, confidence, costs)
    tried = [thresholds.yes_no_cost(right, confidence, t, costs) for t in np.linspace(0, 1.01, 203)]
    assert thresholds.yes_no_cost(right, confidence, yes.threshold, costs) == pytest.approx(yes.cost)
    assert yes.cost <= min(tried) + 1e-9


def test_calibrated_probabilities_need_no_fitting() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(40_000)
    right = rng.random(40_000) < p
    costs = Costs(false_positive=3, false_negative=1, abstain=0.2)
    assert thresholds.fit_yes_no(right, p, costs).threshold == pytest.approx(0.75, abs=0.06)
    assert thresholds.chow(costs) == 0.8
    assert thresholds.fit_abstain(p, right.astype(float), costs).threshold == pytest.approx(0.8, abs=0.06)


def test_the_dearer_mistake_is_made_less_often() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(500) < 0.4
    scores = np.clip(0.5 * right + rng.random(500) * 0.6, 0, 1)
    dear, cheap = (thresholds.fit_yes_no(right, scores, Costs(false_positive=cost)).threshold for cost in (20, 0.05))
    assert dear > cheap


def test_coverage_and_accuracy_at_every_level() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.5])
    curve = thresholds.abstention_curve(confidence, np.array([1, 1, 0, 0]))
    assert [*curve.coverage] == [0.25, 0.75, 1.0]
    assert [*curve.accuracy] == pytest.approx([1, 2 / 3, 0.5])
    assert curve.aurc == pytest.approx((0 + 2 / 3 + 0.5) / 4)
    assert curve.best_aurc == pytest.approx((0 + 0 + 1 / 3 + 0.5) / 4)
    assert curve.best_aurc <= curve.aurc
    assert thresholds.thin(curve)[-1] == {"coverage": 1.0, "accuracy": 0.5, "threshold": 0.5}


def test_every_rule_tells_foreign_rows_apart() -> None:
    rng = np.random.default_rng(2)
    centres = np.eye(4, 16) * 5
    own = rng.integers(0, 4, 300)
    known, foreign = centres[own] + rng.normal(size=(300, 16)), rng.normal(size=(100, 16)) + 0.2
    head = np.eye(16, 4)
    means = thresholds.class_centres(known, own, 4)
    surely = {name: (thresholds.scope_scores(rows @ head, softmax(rows @ head), 1.0, rows, means))
              for name, rows in (("known", known), ("foreign", foreign))}
    for rule in ("max_probability", "margin", "energy", "centre"):
        pairs = surely["known"][rule][:, None] > surely["foreign"][rule][None]
        assert pairs.mean() > 0.8, rule
