"""The running mean of weights equals the mean, and is part of a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch

from luthier.train.average import Average, Mean, averaged


def test_the_running_mean_is_the_mean_and_counts_are_taken_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [{"w": torch.randn(5, generator=generator), "seen": torch.tensor(at)} for at in range(7)]
    mean = Mean()
    for one in weights:
        mean.add(one)
    torch.testing.assert_close(mean.tensors["w"], torch.stack([one["w"] for one in weights]).mean(0))
    assert int(mean.tensors["seen"]) == 6 and mean.count == 7


def test_the_mean_of_equal_weights_has_their_bits() -> None:
    mean, weight = Mean(), torch.randn(100, generator=torch.Generator().manual_seed(0))
    for _ in range(9):
        mean.add({"w": weight})
    assert torch.equal(mean.tensors["w"], weight)


def test_only_the_last_part_and_every_second_enter() -> None:
    learner = SimpleNamespace(at=0, weights=lambda: {"w": torch.tensor([float(learner.at)])})
    mean = Mean()

    def steps() -> Any:
        for at in range(1, 11):
            learner.at = at
            yield SimpleNamespace(step=at)

    assert len([*averaged(steps(), Average(start=0.5, every=2), mean, cast(Any, learner), total=10)]) == 10
    assert mean.count == 2 and float(mean.tensors["w"]) == 8.0  # updates 7 and 9
