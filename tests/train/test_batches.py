"""Law: every example appears once per epoch, order depends on (seed, epoch) alone, and batches are what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.train.batches import Order, collate, split_passes
from luthier.train.render import Rendered


def example(length, start=1, weight=1.0, masked=2):
    return Rendered(f"e{start}", tuple(range(start, start + length)), (*[False] * masked, *[True] * (length - masked)),
                    weight)


@given(st.lists(st.integers(3, 300), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 3),
       st.sampled_from(["packed", "buckets", "none"]))
@settings(max_examples=40, deadline=None)
def test_an_epoch_holds_every_example_once(lengths, batch_size, epoch, layout):
    plan = Order(tuple(lengths), (), (), batch_size, 5, layout)
    updates = plan.epoch(epoch)
    assert Counter(i for update in updates for i in update) == Counter(range(len(lengths)))
    assert len(updates) == plan.updates_per_epoch and updates == plan.epoch(epoch)


@given(st.lists(st.integers(3, 300), min_size=1, max_size=20), st.integers(16, 500),
       st.sampled_from(["packed", "buckets", "none"]))
@settings(max_examples=40, deadline=None)
def test_passes_hold_all_examples_within_the_budget(lengths, budget, layout):
    passes = split_passes(range(len(lengths)), lengths, layout, budget)
    assert sorted(i for group in passes for i in group) == list(range(len(lengths)))
    for group in passes:
        cost = sum(lengths[i] for i in group) if layout == "packed" else max(lengths[i] for i in group) * len(group)
        assert cost <= budget or len(group) == 1


def test_orders_differ_by_epoch_and_seed():
    plan = Order(tuple([5] * 50), (), (), 5, 5, "packed")
    assert plan.epoch(0) != plan.epoch(1)
    assert plan.epoch(0) != Order(tuple([5] * 50), (), (), 5, 6, "packed").epoch(0)


def test_replay_walks_through_its_pool():
    plan = Order(tuple([5] * 30), (12,), (4,), 5, 0, "packed")  # 18 own, 12 in the pool, 4 of them an epoch
    seen = []
    for epoch in range(3):
        indices = [i for update in plan.epoch(epoch) for i in update]
        assert sorted(i for i in indices if i < 18) == list(range(18))
        seen += [i for i in indices if i >= 18]
    assert sorted(seen) == list(range(18, 30))


def test_buckets_waste_less_than_chance():
    lengths = tuple(int(x) for x in np.random.default_rng(0).integers(20, 400, 400))

    def padded(layout):
        updates = Order(lengths, (), (), 8, 0, layout).epoch(0)
        return sum(len(u) * max(lengths[i] for i in u) for u in updates) / sum(lengths)

    assert padded("buckets") < 1.1 < padded("none")


@pytest.mark.parametrize("layout", ["packed", "buckets"])
def test_positions_point_at_the_token_before_each_target(layout):
    items = [example(7, 10), example(4, 50, weight=2.0), example(5, 90)]
    batch = collate(items, layout)
    flat = batch.input_ids.flatten()
    assert batch.num_tokens == 16
    found = [(int(flat[p]), int(t)) for p, t in zip(batch.positions, batch.targets)]
    assert found == [(t - 1, t) for item in items for t, on in zip(item.ids, item.loss) if on]
    assert batch.weights.tolist() == [1] * 5 + [2] * 2 + [1] * 3
    if layout == "packed":
        assert batch.lengths == (6, 3, 4) and batch.position_ids[0].tolist() == [*range(6), *range(3), *range(4)]
    else:
        assert batch.lengths is None and batch.input_ids.shape == (3, 6)
