"""Laws of the order in which rows are seen: every new row once, the replayed share of each update, and no memory."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.train.labelled.feed import LabelOrder


@st.composite
def orders(draw: st.DrawFn) -> LabelOrder:
    own, pool = draw(st.integers(1, 40)), draw(st.integers(0, 12))
    even = draw(st.booleans())
    sizes = tuple(1 if even else draw(st.integers(1, 30)) for _ in range(own + pool))
    return LabelOrder(sizes, draw(st.integers(1, 9)), draw(st.integers(0, 3)), num_pool=pool,
                      share=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])) if pool else 0.0)


@given(orders(), st.integers(0, 5))
def test_every_epoch_sees_each_new_row_once_and_pool_rows_only_by_share(order: LabelOrder, epoch: int) -> None:
    updates = order.epoch(epoch)
    own = [at for update in updates for at in update if at < order.num_own]
    assert sorted(own) == [*range(order.num_own)]
    assert len(updates) == order.updates_per_epoch
    for update in updates:
        replayed = [at for at in update if at >= order.num_own]
        assert len(replayed) == order.num_replayed and all(at < len(order.sizes) for at in replayed)
        assert len(update) > len(replayed), "an update is never all old"
        assert len(update) - len(replayed) <= max(order.batch_size - order.num_replayed, 1)


@given(orders(), st.integers(0, 5))
def test_an_epoch_is_a_pure_function(order: LabelOrder, epoch: int) -> None:
    assert order.epoch(epoch) == order.epoch(epoch)
    if order.num_own > 8:
        assert order.epoch(epoch) != order.epoch(epoch + 1)


@given(orders())
def test_the_pool_is_walked_through_before_any_row_comes_again(order: LabelOrder) -> None:
    walked = [at for epoch in range(6) for update in order.epoch(epoch) for at in update if at >= order.num_own]
    if not order.num_replayed:
        assert walked == []
        return
    for turn in range(len(walked) // order.num_pool):
        part = walked[turn * order.num_pool: (turn + 1) * order.num_pool]
        assert sorted(part) == [*range(order.num_own, len(order.sizes))]
    counts = Counter(walked)
    assert max(counts.values()) - min(counts.get(at, 0) for at in range(order.num_own, len(order.sizes))) <= 1


@pytest.mark.parametrize(("share", "batch", "wanted"), [
    (0.25, 32, 8), (0.5, 32, 16), (0.01, 32, 1), (0.9, 4, 3), (0.99, 8, 7), (0.1, 2, 1)])
def test_the_share_is_rounded_but_never_none_and_never_all(share: float, batch: int, wanted: int) -> None:
    order = LabelOrder((1,) * 110, batch, 0, num_pool=10, share=share)
    assert order.num_replayed == wanted
    assert LabelOrder((1,) * 110, batch, 0, num_pool=10, share=0.0).num_replayed == 0


def test_a_batch_of_one_still_has_its_new_row() -> None:
    order = LabelOrder((1,) * 6, 1, 0, num_pool=2, share=0.5)
    assert all(len([at for at in update if at < 4]) == 1 for update in order.epoch(0))


def test_without_a_pool_nothing_changes() -> None:
    """New rows come in the order in which they came before there was replay, for the same number of them an update."""
    plain = LabelOrder((1,) * 30, 6, 3)
    mixed = LabelOrder((1,) * 40, 8, 3, num_pool=10, share=0.25)
    assert [tuple(at for at in update if at < 30) for update in mixed.epoch(2)] == plain.epoch(2)


def test_a_balanced_draw_is_of_the_new_rows_alone() -> None:
    order = LabelOrder((1,) * 12, 4, 0, draw=(0.5, 0.5, *[0.0] * 8), num_pool=2, share=0.25)
    own = [at for epoch in range(5) for update in order.epoch(epoch) for at in update if at < 10]
    assert {*own} == {0, 1} and len(own) == 50
