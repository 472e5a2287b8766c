"""Law: float32 weights follow torch's AdamW exactly; bfloat16 weights follow it through their masters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luthier.train.optim import MasterAdamW, rate


def toy(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)).to(dtype)


def backward(module, step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator).to(next(module.parameters()).dtype)
    (module(x).float() - x.float().sum(1, keepdim=True)).square().mean().backward()


def test_equals_torch_adamw_on_a_toy():
    ours, theirs = toy(torch.float32), toy(torch.float32)
    optimizer = MasterAdamW(dict(ours.named_parameters()), weight_decay=0.1)
    reference = torch.optim.AdamW([
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0}])
    for step in range(20):
        backward(ours, step)
        optimizer.gather()
        norm = optimizer.clip(0.5)
        optimizer.step(rate(step, total=20, peak=0.02, warmup=3, schedule="cosine"))
        backward(theirs, step)
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)))
        for group in reference.param_groups:
            group["lr"] = rate(step, total=20, peak=0.02, warmup=3, schedule="cosine")
        reference.step()
        reference.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters()):  # ours is the fused kernel on a CPU: other last bits
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_updates_too_small_for_bfloat16_still_add_up():
    weight = nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": weight}, weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.gather()
        optimizer.step(1e-4)  # 1/256 of 1 is 39 times larger
    assert torch.allclose(optimizer.masters["w"], torch.full((8, 8), 0.99), atol=1e-4)
    assert torch.allclose(weight.float(), torch.full((8, 8), 0.99), atol=4e-3)


def test_gradients_of_passes_add_up_in_float32():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": weight}, weight_decay=0.0)
    for value in [256.0] + [0.5] * 16:  # in bfloat16 256 + 0.5 is 256
        weight.grad = torch.full_like(weight, value)
        optimizer.gather()
    assert float(optimizer.gradients()[0]) == 264.0


def test_state_goes_through_a_checkpoint():
    ours = toy(torch.bfloat16)
    optimizer = MasterAdamW(dict(ours.named_parameters()), weight_decay=0.1)

    def go(start, stop):
        for step in range(start, stop):
            backward(ours, step)
            optimizer.gather()
            optimizer.step(0.01)
        return optimizer.weights()

    go(0, 3)
    kept = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    straight = go(3, 6)
    optimizer.load(kept)
    again = go(3, 6)
    assert all(torch.equal(straight[name], again[name]) for name in straight)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules(schedule):
    rates = [rate(step, total=100, peak=2.0, warmup=10, schedule=schedule) for step in range(100)]
    assert rates[0] > 0 and rates[:11] == sorted(rates[:11]) and max(rates) == rates[10] == 2.0
    if schedule == "constant":
        assert set(rates[10:]) == {2.0}
    else:
        assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.05
        assert rates[55] == pytest.approx(1.0)  # both fall symmetrically


def test_a_resumed_optimizer_ends_with_the_same_bits_for_weights_that_lie_channels_last_in_memory():
    def start():
        torch.manual_seed(0)
        weight = torch.randn(8, 6, 3, 3).to(memory_format=torch.channels_last)
        return MasterAdamW({"conv": torch.nn.Parameter(weight)}, weight_decay=0.01)

    def step(optimizer, seed):
        gradient = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(seed))
        master = optimizer.masters["conv"]
        master.grad = torch.empty_like(master).copy_(gradient)
        optimizer.step(1e-2)

    straight, stopped, resumed = start(), start(), start()
    step(straight, 1)
    step(stopped, 1)
    resumed.load({name: value.detach().clone().contiguous() for name, value in stopped.state().items()})
    step(straight, 2)
    step(resumed, 2)
    assert torch.equal(straight.weights()["conv"], resumed.weights()["conv"])
