"""Laws of elastic weight consolidation: its parabola over effective weights, and what holds to which anchor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ewc_kit import Said, move
from torch import nn

from luthier.errors import ModelError, SpecError
from luthier.task import Task
from luthier.testing import check_spec
from luthier.train.base import Train
from luthier.train.past import Past
from luthier.train.regularizers import REGULARIZERS, Setting
from luthier.train.regularizers._weights import training_weights
from luthier.train.regularizers.ewc import EWC
from luthier.train.regularizers.l2sp import L2SP


class Layer(nn.Module):
    """One weight with LoRA's factors beside it, in PEFT's attributes."""

    def __init__(self, rank: int = 2, *, started: bool = True, transposed: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.base_layer = nn.Linear(5, 4, bias=False).double().requires_grad_(False)
        if transposed:
            self.base_layer.weight = nn.Parameter(drawn(5, 4).data, requires_grad=False)
        holds = SimpleNamespace
        self.a, self.b = drawn(rank, 5), drawn(4, rank)
        if not started:
            self.b.data.zero_()
        self.lora_A, self.lora_B = {"default": holds(weight=self.a)}, {"default": holds(weight=self.b)}
        self.scaling, self.fan_in_fan_out = {"default": 1.7}, transposed


def network(**options: Any) -> Any:
    """A model with one adapted weight and one that trains by itself."""
    module = nn.ModuleDict({"layer": Layer(**options), "head": nn.Linear(4, 3).double()})
    return SimpleNamespace(module=module, task=Task(), name="small")


def importances(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {w.name: torch.rand(w.base.shape, generator=generator, dtype=torch.float64)
            for w in training_weights(model.module)}


def past_of(**kept: Any) -> Past:
    return Past(open=lambda: None, kept={"ewc": {name.replace("__", "/"): value for name, value in kept.items()}})


def with_fisher(fisher: dict[str, torch.Tensor]) -> Past:
    return Past(open=lambda: None, kept={"ewc": {f"fisher/{name}": value for name, value in fisher.items()}})


def test_spec_conforms() -> None:
    check_spec(REGULARIZERS, EWC(strength=50.0, fisher="exact", samples=20, decay=0.9))
    with pytest.raises(ValueError, match="mode: online"):
        EWC(mode="offline", decay=0.5)
    with pytest.raises(SpecError, match="fisher: sampled"):
        Train(regularizers=(EWC(fisher="exact"),)).refuse_misfits(Task(type="tag"))
    Train(regularizers=(EWC(fisher="exact"),)).refuse_misfits(Task(type="classify"))


@pytest.mark.parametrize("options", [{}, {"started": False}, {"transposed": True}])
def test_the_penalty_is_the_parabola_over_effective_weights(options: Any) -> None:
    model = network(**options)
    fisher, before = importances(model), {w.name: w.value() for w in training_weights(model.module)}
    penalty = EWC(strength=6.0).bind(Setting(model=model, rows=(), past=with_fisher(fisher)))
    assert penalty is not None and float(penalty().detach()) == 0.0
    move(model)
    after = {w.name: w.value() for w in training_weights(model.module)}
    assert set(after) == {"layer.weight", "head.weight", "head.bias"}
    wanted = sum(float((fisher[n] * (after[n] - before[n]) ** 2).sum()) for n in after) * 6.0 / 2
    assert float(penalty().detach()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_match_finite_differences(mode: Any, transposed: bool) -> None:
    model = network(transposed=transposed)
    kept = {f"0/fisher/{n}": v for n, v in importances(model).items()}
    kept |= {f"0/anchor/{w.name}": w.value() + 0.3 for w in training_weights(model.module)}
    past = Past(open=lambda: None, kept={"ewc": kept})
    penalty = EWC(strength=3.0, mode=mode).bind(Setting(model=model, rows=(), past=past))
    assert penalty is not None
    move(model)
    penalty().backward()
    for parameter in [p for p in model.module.parameters() if p.requires_grad]:
        for place in range(0, parameter.numel(), 3):
            flat, sides = parameter.data.view(-1), []
            for step in (1e-5, -1e-5):
                flat[place] += step
                sides.append(float(penalty().detach()))
                flat[place] -= step
            assert parameter.grad is not None
            assert float(parameter.grad.view(-1)[place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("kind", [EWC(strength=5.0), L2SP(strength=5.0)])
def test_factors_that_are_scaled_against_each_other_are_the_same_weights(kind: Any) -> None:
    model = network()
    penalty = kind.bind(Setting(model=model, rows=(), past=with_fisher(importances(model))))
    with torch.no_grad():
        model.module["layer"].a.mul_(4)
        model.module["layer"].b.div_(4)
    assert float(penalty().detach()) == pytest.approx(0, abs=1e-12)
    move(model)
    found = float(penalty().detach())
    with torch.no_grad():
        model.module["layer"].a.mul_(-0.5)
        model.module["layer"].b.div_(-0.5)
    assert float(penalty().detach()) == pytest.approx(found, rel=1e-9) and found > 0.01


def test_l2sp_measures_from_the_product_that_training_began_with() -> None:
    model = network()
    before = {w.name: w.value() for w in training_weights(model.module)}
    penalty = L2SP(strength=2.0).bind(Setting(model=model, rows=()))
    assert float(penalty().detach()) == 0.0
    move(model)
    wanted = sum(float((w.value() - before[w.name]).square().sum()) for w in training_weights(model.module))
    assert float(penalty().detach()) == pytest.approx(wanted, rel=1e-6)


def test_offline_holds_to_every_task_and_reads_what_online_left() -> None:
    model = network()
    ones, twos = importances(model, 1), importances(model, 2)
    twos["head.bias"].zero_()
    anchors = [{w.name: w.value() + shift for w in training_weights(model.module)} for shift in (0.2, -0.1)]
    kept = {f"{at}/{part}/{n}": v for at, (f, a) in enumerate(zip((ones, twos), anchors))
            for part, tensors in (("fisher", f), ("anchor", a)) for n, v in tensors.items()}
    setting = Setting(model=model, rows=(), past=Past(open=lambda: None, kept={"ewc": kept}))
    penalty = EWC(strength=2.0, mode="offline").bind(setting)
    move(model)
    assert penalty is not None
    wanted = sum(float((f[w.name] * (w.value() - a[w.name]) ** 2).sum())
                 for f, a in zip((ones, twos), anchors) for w in training_weights(model.module))
    assert float(penalty().detach()) == pytest.approx(wanted, rel=1e-9)

    one = EWC(strength=2.0).bind(setting)  # online, from here on: all importances, one anchor
    assert one is not None and float(one().detach()) == 0.0
    same = network()
    other = EWC(strength=2.0, mode="offline").bind(Setting(model=same, rows=(), past=with_fisher(ones)))
    move(same)
    plain = network()
    online = EWC(strength=2.0).bind(Setting(model=plain, rows=(), past=with_fisher(ones)))
    move(plain)
    assert other is not None and online is not None
    assert float(other().detach()) == pytest.approx(float(online().detach()), rel=1e-12)


def test_a_penalty_that_would_swing_says_so() -> None:
    model, progress = network(started=False), Said()
    fisher = {name: torch.full_like(value, 1e-9) for name, value in importances(model).items()}
    fisher["head.weight"][1, 2] = 0.25
    setting = Setting(model=model, rows=(), past=with_fisher(fisher), learning_rate=1e-2, progress=progress)
    EWC(strength=100.0).bind(setting)
    assert "importance is 0.25" in progress.lines[-1] and "swing" not in progress.lines[-1]
    assert "costs 0.0013 nats" in progress.lines[-1]  # 1/2 x strength x rate² x the sum of importances
    EWC(strength=1600.0).bind(setting)
    assert "importance is 4 (from 2 on" in progress.lines[-1] and "hardly" not in progress.lines[-1]
    EWC(strength=160_000.0).bind(setting)
    assert "costs 2 nats" in progress.lines[-1] and "try strength 8e+03" in progress.lines[-1]


@pytest.mark.parametrize("started", [True, False])
def test_the_cost_of_a_step_is_the_mean_over_its_signs(started: bool) -> None:
    model = network(started=started)
    fisher = importances(model)
    rate, costs, progress = 1e-3, [], Said()
    penalty = EWC(strength=1.0).bind(Setting(model=model, rows=(), past=with_fisher(fisher), learning_rate=rate,
                                             progress=progress))
    told = float(progress.lines[-1].split("costs ")[1].split()[0])
    moving = [p for p in model.module.parameters() if p.requires_grad]
    begun, generator = [p.detach().clone() for p in moving], torch.Generator().manual_seed(0)
    for _ in range(400):
        with torch.no_grad():
            for p, old in zip(moving, begun):
                p.copy_(old + rate * (2 * torch.randint(2, p.shape, generator=generator) - 1))
        assert penalty is not None
        costs.append(float(penalty().detach()))
    assert float(np.mean(costs)) == pytest.approx(told, rel=0.06)


def test_a_model_that_remembers_nothing_is_refused_and_a_base_model_is_not() -> None:
    model = network()
    with pytest.raises(ModelError, match=r"train\.keep"):
        EWC().bind(Setting(model=model, rows=(), past=past_of()))
    assert EWC(strength=0.0).bind(Setting(model=model, rows=(), past=past_of())) is None
    assert EWC().bind(Setting(model=model, rows=())) is None
    wrong = {name: value[:1] for name, value in importances(model).items()}
    with pytest.raises(ModelError, match=r"begin from another model"):
        EWC().bind(Setting(model=model, rows=(), past=with_fisher(wrong)))
