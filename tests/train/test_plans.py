"""Plans say which groups learn, how fast, and when; the conformance kit checks every registered one."""

from __future__ import annotations

import pytest

from luthier.testing import GROUPS, check_plan
from luthier.train import streams
from luthier.train.plans import PLANS, trained
from luthier.train.plans.discriminative import Discriminative
from luthier.train.plans.gradual import Gradual
from luthier.train.plans.two_phase import TwoPhase


@pytest.mark.parametrize("kind", sorted(PLANS.kinds()))
def test_every_plan_keeps_the_laws(kind: str) -> None:
    check_plan(PLANS.parse(kind))


def test_discriminative_divides_from_the_top() -> None:
    factors = Discriminative(divide_by=2.6).factors(GROUPS, 0)
    assert factors["head"] == 1 and factors["layer.002"] == pytest.approx(1 / 2.6)
    assert factors["embeddings"] == pytest.approx(2.6 ** -4)


def test_gradual_opens_one_group_a_phase_from_the_top_and_never_the_lowest() -> None:
    plan = Gradual(lowest=1, groups_at_once=1, divide_by=1.0)
    assert plan.phases(GROUPS) == 4
    assert [set(plan.factors(GROUPS, phase)) for phase in range(4)] == [set(GROUPS[4 - n:]) for n in range(4)]
    assert trained(plan, GROUPS) == set(GROUPS[1:])
    assert Gradual(groups_at_once=3).phases(GROUPS) == 3
    assert set(Gradual(groups_at_once=3).factors(GROUPS, 2)) == set(GROUPS)
    assert Gradual(lowest=9).phases(GROUPS) == 1 and trained(Gradual(lowest=9), GROUPS) == {"head"}


def test_gradual_by_plateau_needs_a_validation() -> None:
    plan = Gradual(when="plateau", every=2)
    assert not plan.ends(0, epochs=50, misses=None) and not plan.ends(0, epochs=50, misses=1)
    assert plan.ends(0, epochs=0.1, misses=2)


def test_two_phase_goes_on_with_all_at_a_tenth() -> None:
    plan = TwoPhase(head_epochs=1.5)
    assert plan.factors(GROUPS, 0) == {"head": 1.0}
    assert plan.factors(GROUPS, 1) == pytest.approx(dict.fromkeys(GROUPS, 0.1))
    assert not plan.ends(0, epochs=1.4, misses=None) and plan.ends(0, epochs=1.5, misses=None)


@pytest.mark.parametrize("total", [7, 10, 40, 333])
def test_one_cycle_equals_torch(total: int) -> None:
    import torch

    from luthier.train.optim import rate

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total, cycle_momentum=False)
    for step in range(total):
        mine = rate(step, total=total, peak=0.1, warmup=3, schedule="one_cycle")
        assert mine == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15), step
        optimizer.step()
        if step + 1 < total:
            schedule.step()


def test_plateau_equals_torch() -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    import numpy as np
    import torch

    from luthier.train import streams
    from luthier.train.fit import StepDone

    patience = 2
    losses = [*np.random.default_rng(0).random(40) + np.linspace(1, 0.3, 40)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch waits for more than `patience` bad epochs, luthier for as many; and luthier takes any improvement
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience - 1, threshold=0.0)
    learner, memory, best = SimpleNamespace(scale=1.0), streams.Memory(), float("inf")

    def steps() -> Any:
        nonlocal best
        for at, loss in enumerate(losses):
            better, best = loss < best, min(loss, best)
            yield StepDone(step=at + 1, epoch=0, loss=0.0, penalty=0.0, learning_rate=1.0, grad_norm=0.0, examples=1,
                           tokens=1, supervised=1, cpu_s=0.0, wall_s=0.0, validation=loss, improved=better)

    seen = []
    for _, loss in zip(streams.lowered(steps(), cast(Any, learner), memory, patience=patience), losses):
        schedule.step(loss)
        assert learner.scale == optimizer.param_groups[0]["lr"]
        seen.append(learner.scale)
    assert len(set(seen)) > 2


def test_a_beginning_that_nothing_beats_is_kept_but_does_not_end_a_run_that_still_improves():
    memory, kept = streams.Memory(), []
    for step, loss in ((0, 0.2), (10, 0.5), (20, 0.4), (30, 0.3), (40, 0.35)):
        streams.judge(streams.Validation((loss,), loss), memory, step, lambda step=step: kept.append(step))
        assert memory.misses == (1 if step == 40 else 0)
    assert kept == [0] and memory.best_step == 0


def test_a_metric_that_stands_still_does_not_end_a_run_whose_loss_still_falls():
    """20 validation rows: accuracy moves in steps of .05, and new classes win only after their scores have grown."""
    memory, misses = streams.Memory(), []
    for step, (wrong, loss) in enumerate([(0.10, 0.31), (0.15, 0.26), (0.15, 0.23), (0.15, 0.24), (0.15, 0.25)], 1):
        streams.judge(streams.Validation((wrong, loss), loss), memory, step, lambda: None)
        misses.append(memory.misses)
    assert misses == [0, 0, 0, 1, 2] and memory.best_step == 1
