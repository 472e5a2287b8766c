"""Intervals hold what they promise, equal references, and are paired and reproducible."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.evaluate.compare import Bootstrap, Column, Measured, needed_questions, student_quantile, units
from luthier.types import Example, Message, Origin


def ids(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def example(i: int, document: str | None = None, passage: str | None = None) -> Example:
    return Example(id=str(i), input=(Message(role="user", content="?"),), target="!", split="test",
                   origin=Origin(maker="human", step="t", documents=(document,) if document else (),
                                 passages=(passage,) if passage else ()))


def test_student_quantiles_equal_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 7, 19, 99, 2000):
        assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)


def test_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).gamma(2.0, size=400)
    mine = Bootstrap(ids(400), samples=20_000, seed=3).measure(Column([*values]))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=5).confidence_interval
    assert mine is not None and mine.low is not None and mine.high is not None
    width = theirs.high - theirs.low
    assert abs(mine.low - theirs.low) < 0.03 * width and abs(mine.high - theirs.high) < 0.03 * width


def coverage(draw, truth: float, *, trials: int = 400, samples: int = 400) -> float:
    """How often the interval holds the truth."""
    held = 0
    for trial in range(trials):
        values, unit_ids = draw(np.random.default_rng(1000 + trial))
        one = Bootstrap(unit_ids, samples=samples, seed=trial).measure(Column([*values]))
        assert one is not None and one.low is not None and one.high is not None
        held += one.low <= truth <= one.high
    return held / trials


def test_intervals_hold_the_truth_about_95_times_in_100_even_with_few_questions() -> None:
    for count in (12, 40):
        found = coverage(lambda rng, n=count: (rng.normal(0.4, 0.2, n), ids(n)), 0.4)
        assert 0.92 <= found <= 0.985, (count, found)


def test_cluster_draws_hold_the_truth_where_question_draws_fail() -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
        documents = np.repeat(rng.normal(0.5, 0.2, 20), 6)
        return documents + rng.normal(0, 0.05, 120), [str(i // 6) for i in range(120)]

    clustered = coverage(draw, 0.5)
    naive = coverage(lambda rng: (draw(rng)[0], ids(120)), 0.5)
    assert 0.91 <= clustered <= 0.985, clustered
    assert naive < 0.75, naive


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.5, 0.3, 50)
    base, tuned = Column([*hard]), Column([*(hard + 0.05 + rng.normal(0, 0.01, 50))])
    draws = Bootstrap(ids(50))
    alone, gap = draws.measure(base), draws.difference(tuned, base)
    assert alone is not None and gap is not None and gap.sign == 1
    assert gap.high - gap.low < 0.1 * (alone.high - alone.low)
    back = draws.difference(base, tuned)
    assert back is not None and back.low == pytest.approx(-gap.high) and back.high == pytest.approx(-gap.low)


def test_difference_counts_only_questions_that_both_have() -> None:
    gap = Bootstrap(ids(4)).difference(Column([1.0, None, 0.5, 0.5]), Column([0.0, 1.0, None, 0.25]))
    assert gap is not None and gap.n == 2 and gap.value == pytest.approx(0.625)
    assert Bootstrap(ids(2)).difference(Column([1.0, None]), Column([None, 1.0])) is None


def test_weighted_mean_and_relative_difference_are_ratios_of_sums() -> None:
    draws = Bootstrap(ids(3))
    base, tuned = Column([2.0, 3.0, 1.0], [10, 5, 1]), Column([1.0, 3.0, 1.0], [10, 5, 1])
    one, relative = draws.measure(base), draws.difference(tuned, base, relative=True)
    assert one is not None and one.value == pytest.approx(36 / 16)
    assert relative is not None and relative.value == pytest.approx((26 - 36) / 36)


def test_same_seed_same_interval_other_seed_another() -> None:
    values = Column([*np.random.default_rng(4).normal(size=30)])
    one, two, three = (Bootstrap(ids(30), seed=seed).measure(values) for seed in (1, 1, 2))
    assert one == two != three


def test_one_unit_has_no_interval() -> None:
    one = Bootstrap(["a", "a", "a"]).measure(Column([1.0, 0.0, 1.0]))
    assert one is not None and one.low is None and one.sign == 0 and one.dump()["n"] == 3
    assert Bootstrap(ids(2)).measure(Column([None, None])) is None


def test_units_are_documents_where_shared_and_enough_else_passages_else_questions() -> None:
    assert units([example(i, f"d{i // 2}") for i in range(30)]).name == "document"
    assert units([example(i, f"d{i % 3}", f"p{i // 2}") for i in range(30)]).name == "passage"
    assert units([example(i, f"d{i % 3}", f"p{i}") for i in range(30)]).name == "question"
    assert units([example(i) for i in range(30)]).name == "question"
    assert len(set(units([example(i, f"d{i // 2}") for i in range(30)]).ids)) == 15


def test_needed_questions_follow_the_power_formula() -> None:
    # sd 0.3, n 36: standard error 0.05; a true difference of 0.1 needs (2.8016 * 0.3 / 0.1)^2 = 70.6
    gap = Measured(0.02, 0.02 - 1.959964 * 0.05, 0.02 + 1.959964 * 0.05, 36)
    assert needed_questions(gap, 0.1) == 71
    assert needed_questions(gap, 1.0) == 36  # never fewer than there are
    assert needed_questions(Measured(0.1, None, None, 1), 0.1) is None


def test_needed_questions_give_the_promised_power_in_simulation() -> None:
    rng = np.random.default_rng(8)
    pilot = Bootstrap(ids(60)).measure(Column([*rng.normal(0.0, 0.3, 60)]))
    assert pilot is not None
    count = needed_questions(pilot, 0.1)
    assert count is not None
    wins = 0
    for trial in range(200):
        one = Bootstrap(ids(count), samples=300, seed=trial).measure(Column([*rng.normal(0.1, 0.3, count)]))
        wins += one is not None and one.sign > 0
    assert 0.68 <= wins / 200 <= 0.92, (count, wins)


def test_a_share_of_yes_and_no_gets_wilsons_interval() -> None:
    all_right = Bootstrap(ids(4)).measure(Column([1.0] * 4))
    assert all_right is not None and all_right.high == 1.0 and all_right.low == pytest.approx(0.5101, abs=1e-4)
    half = Bootstrap(ids(40)).measure(Column([1.0, 0.0] * 20))
    assert half is not None and half.low == pytest.approx(0.3520, abs=1e-3)  # Wilson's table value
    # five documents that are right throughout are five pieces of evidence, not twenty
    clustered = Bootstrap([str(i // 4) for i in range(20)]).measure(Column([1.0] * 20))
    assert clustered is not None and clustered.low == pytest.approx(0.5655, abs=1e-3)
