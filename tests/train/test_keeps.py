"""Laws of the store: its size, its balance, who stays, and that none of it depends on the order of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luthier.errors import SpecError
from luthier.task import Task
from luthier.testing import check_spec
from luthier.train.base import Train
from luthier.train.keeps import KEEPS, Candidates, Keep
from luthier.train.keeps.balanced import Balanced
from luthier.train.keeps.boundary import Boundary
from luthier.train.keeps.hardest import Hardest
from luthier.train.keeps.reservoir import Reservoir

ALL = (Balanced, Boundary, Hardest, Reservoir)


def offered(ids: list[str], *, num_old: int = 0, seed: int = 0, classes: Any = None, losses: Any = None,
            margins: Any = None) -> Candidates:
    num = len(ids)
    rng = np.random.default_rng(7)
    return Candidates(
        ids=ids, num_old=num_old, num_seen=num, seed=seed,
        classes=np.zeros(num, dtype=np.int64) if classes is None else np.asarray(classes),
        losses=rng.random(num).astype(np.float32) if losses is None else np.asarray(losses, dtype=np.float32),
        margins=rng.random(num).astype(np.float32) if margins is None else np.asarray(margins, dtype=np.float32))


def names(num: int, first: int = 0) -> list[str]:
    return [f"row-{at}" for at in range(first, first + num)]


@pytest.mark.parametrize("spec", [Balanced(size=3), Boundary(size=4, logits=False), Hardest(size=9, doubt=0.2),
                                  Reservoir(size=5)])
def test_the_specs_keep_the_laws(spec: Keep) -> None:
    check_spec(KEEPS, spec)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("num", [0, 1, 6, 7, 8, 50])
def test_exactly_size_rows_stay_in_ascending_order(kind: Any, num: int) -> None:
    found = [*kind(size=7).choose(offered(names(num), classes=np.arange(num) % 3))]
    assert len(found) == min(7, num) and found == sorted({*found})


@pytest.mark.parametrize("kind", ALL)
def test_the_choice_depends_on_the_rows_not_on_their_order(kind: Any) -> None:
    rng = np.random.default_rng(0)
    ids, classes = names(60), rng.integers(0, 4, 60)
    losses, margins = rng.integers(0, 5, 60), rng.integers(0, 5, 60)  # many ties
    keep = kind(size=13, doubt=0.0) if kind is Hardest else kind(size=13)

    def chosen(order: np.ndarray) -> set[str]:
        rows = offered([ids[at] for at in order], classes=classes[order], losses=losses[order], margins=margins[order])
        return {rows.ids[at] for at in keep.choose(rows)}

    first = chosen(np.arange(60))
    assert all(chosen(rng.permutation(60)) == first for _ in range(5))


@pytest.mark.parametrize("kind", ALL)
def test_several_trainings_choose_as_one_would(kind: Any) -> None:
    """Law: choosing from all rows at once, and choosing again from store and new rows, give the same store."""
    rng = np.random.default_rng(1)
    ids, classes = names(90), rng.integers(0, 3, 90)
    losses, margins = rng.random(90), rng.random(90)
    keep = kind(size=20, doubt=0.0) if kind is Hardest else kind(size=20)

    def choose(places: list[int], num_old: int) -> list[int]:
        return [places[at] for at in keep.choose(offered(
            [ids[at] for at in places], num_old=num_old, classes=classes[places], losses=losses[places],
            margins=margins[places]))]

    store: list[int] = []
    for first in (0, 30, 60):
        store = choose([*store, *range(first, first + 30)], len(store))
    assert sorted(store) == choose([*range(90)], 0)


def test_the_reservoir_is_even_over_all_rows_however_many_trainings_ago() -> None:
    """Every one of 60 rows that came in three trainings of 30, 20 and 10 stays with chance 12/60: chi-square over 2,000
    seeds stays below the 99.9 % point of its distribution (59 degrees of freedom, times 1 - 12/60)."""
    counts = np.zeros(60)
    for seed in range(2000):
        store: list[int] = []
        for first, num in ((0, 30), (30, 20), (50, 10)):
            places = [*store, *range(first, first + num)]
            rows = offered([names(60)[at] for at in places], num_old=len(store), seed=seed)
            store = [places[at] for at in Reservoir(size=12).choose(rows)]
        counts[store] += 1
    expected = 2000 * 12 / 60
    assert counts.sum() == 2000 * 12
    assert ((counts - expected) ** 2 / expected).sum() < 98.3 * (1 - 12 / 60)
    thirds = [counts[part].mean() / expected for part in (slice(0, 30), slice(30, 50), slice(50, 60))]
    assert thirds == pytest.approx([1, 1, 1], abs=0.05)


def test_a_row_that_comes_again_has_one_lot() -> None:
    """Data that grow bring every earlier row again: the store is then the same as if they had come once."""
    rows = offered(names(40))
    once = {rows.ids[at] for at in Reservoir(size=8).choose(rows)}
    rows = offered([*sorted(once), *(id for id in names(40) if id not in once)], num_old=8)
    assert {rows.ids[at] for at in Reservoir(size=8).choose(rows)} == once


def test_a_smaller_size_keeps_a_part_of_what_was_there() -> None:
    rows = offered(names(100))
    large, small = (Reservoir(size=size).choose(rows) for size in (40, 10))
    assert {*small} < {*large}


def test_another_seed_draws_other_lots() -> None:
    assert Reservoir(size=10).choose(offered(names(100), seed=1)) != Reservoir(size=10).choose(offered(names(100)))


@pytest.mark.parametrize("kind", [Balanced, Boundary, Hardest])
def test_classes_differ_by_at_most_one_where_they_have_the_rows(kind: Any) -> None:
    classes = np.array([0] * 70 + [1] * 20 + [2] * 3 + [-1] * 7)
    found = classes[[*kind(size=23).choose(offered(names(100), classes=classes))]]
    counts = {one: int((found == one).sum()) for one in (0, 1, 2, -1)}
    assert counts[2] == 3, "a small class keeps all it has"
    rest = sorted(counts[one] for one in (0, 1, -1))
    assert rest == [6, 7, 7] and sum(rest) + 3 == 23


def test_the_balanced_store_is_even_within_a_class() -> None:
    counts = np.zeros(40)
    classes = np.array([0] * 30 + [1] * 10)
    for seed in range(1500):
        counts[Balanced(size=10).choose(offered(names(40), seed=seed, classes=classes))] += 1
    assert counts[:30].sum() == counts[30:].sum() == 1500 * 5
    for part, chance in ((counts[:30], 5 / 30), (counts[30:], 5 / 10)):
        expected = 1500 * chance
        spread = ((part - expected) ** 2 / expected).sum() / (1 - chance)
        assert spread < {30: 58.3, 10: 27.9}[len(part)], "99.9 % points of chi-square, 29 and 9 degrees of freedom"


def test_hardest_and_boundary_take_the_extremes_of_each_class() -> None:
    classes = np.array([0, 1] * 20)
    losses, margins = np.arange(40.0), np.arange(40.0)
    assert Hardest(size=4, doubt=0.0).choose(offered(names(40), classes=classes, losses=losses)) == [36, 37, 38, 39]
    assert Boundary(size=4).choose(offered(names(40), classes=classes, margins=margins)) == [0, 1, 2, 3]


def test_hardest_leaves_out_what_is_probably_mislabelled() -> None:
    """Two of twenty new rows of a class have huge losses: doubted, they come in last; stored rows are not doubted."""
    losses = np.r_[np.linspace(1, 2, 18), 9.0, 8.0]
    rows = offered(names(20), losses=losses)
    assert Hardest(size=3).choose(rows) == [15, 16, 17]
    assert Hardest(size=3, doubt=0.0).choose(rows) == [17, 18, 19]
    assert Hardest(size=19).choose(rows) == [*range(18), 19], "the less doubtful one comes in first"
    stored = offered(names(20), losses=losses, num_old=20)
    assert Hardest(size=3).choose(stored) == [17, 18, 19]


@pytest.mark.parametrize(("keep", "task"), [
    (Balanced(), Task(type="embed")), (Hardest(), Task(type="embed")), (Boundary(), Task(type="embed")),
    (Boundary(), Task())])
def test_a_task_that_has_nothing_to_choose_by_is_refused(keep: Keep, task: Task) -> None:
    with pytest.raises(SpecError, match=rf"train\.keep: '{keep.kind}'.*take.*reservoir"):
        Train(keep=keep).refuse_misfits(task)
    Train(keep=Reservoir()).refuse_misfits(task)
