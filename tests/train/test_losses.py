"""Losses equal torch's, sum over rows, and stay finite; the conformance kit checks every registered one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from luthier.testing import check_loss
from luthier.train.labelled.objective import distillation
from luthier.train.losses import LOSSES, balanced
from luthier.train.losses.cross_entropy import CrossEntropy
from luthier.train.losses.focal import Focal

COUNTS = np.array([80, 15, 5])


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (2 * torch.randn(40, 3, generator=generator), torch.randint(0, 3, (40,), generator=generator),
            torch.rand(40, generator=generator))


@pytest.mark.parametrize("kind", sorted(LOSSES.kinds()))
def test_every_loss_keeps_the_laws(kind: str) -> None:
    check_loss(LOSSES.parse(kind))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(smoothing: float, rows: Any) -> None:
    logits, targets, weights = rows
    mine = CrossEntropy(smoothing=smoothing).bind(COUNTS, multi_label=False)(logits, targets, weights)
    theirs = (F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none") * weights).sum()
    torch.testing.assert_close(mine, theirs)
    soft = F.softmax(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), -1)
    mine = CrossEntropy(smoothing=smoothing).bind(COUNTS, multi_label=False)(logits, soft, torch.ones(40))
    torch.testing.assert_close(mine, F.cross_entropy(logits, soft, label_smoothing=smoothing, reduction="sum"))


def test_class_weights_are_scikit_learns(rows: Any) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    logits, targets, _ = rows
    labels = np.repeat(np.arange(3), COUNTS)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose(balanced(COUNTS), wanted)
    mine = CrossEntropy(class_weights="balanced").bind(COUNTS, multi_label=False)(logits, targets, torch.ones(40))
    theirs = F.cross_entropy(logits, targets, weight=torch.tensor(wanted, dtype=torch.float32), reduction="sum")
    torch.testing.assert_close(mine, theirs)
    assert balanced(np.array([4, 0, 4]))[1] == 0


def test_several_labels_are_torchs_binary_cross_entropy(rows: Any) -> None:
    logits, targets, weights = rows
    hot = F.one_hot(targets, 3).float()
    mine = CrossEntropy().bind(COUNTS, multi_label=True)(logits, hot, weights)
    theirs = (F.binary_cross_entropy_with_logits(logits, hot, reduction="none").mean(-1) * weights).sum()
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_focal_without_gamma_is_cross_entropy(several: bool, class_weights: Any, rows: Any) -> None:
    logits, targets, weights = rows
    goal = F.one_hot(targets, 3).float() if several else targets
    pair = [kind.bind(COUNTS, multi_label=several)(logits, goal, weights)
            for kind in (Focal(gamma=0.0, class_weights=class_weights), CrossEntropy(class_weights=class_weights))]
    torch.testing.assert_close(*pair)


def test_focal_discounts_rows_that_are_right_already() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    loss, plain = Focal().bind(COUNTS[:2], multi_label=False), CrossEntropy().bind(COUNTS[:2], multi_label=False)
    for at in range(2):
        chance = logits[at].softmax(-1)[0]
        row = (logits[at:at + 1], torch.tensor([0]), torch.ones(1))
        torch.testing.assert_close(loss(*row), (1 - chance) ** 2 * plain(*row))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_match_finite_differences(smoothing: float, rows: Any) -> None:
    logits, targets, weights = rows
    for loss in (CrossEntropy(smoothing=smoothing), Focal(gamma=2.0)):
        bound = loss.bind(COUNTS, multi_label=False)
        logits = logits[:4].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(bound(logits, targets[:4], weights[:4]), logits)
        for at in ((0, 0), (3, 2)):
            moved = [logits.detach().clone(), logits.detach().clone()]
            moved[0][at] += 1e-2
            moved[1][at] -= 1e-2
            slope = (bound(moved[0], targets[:4], weights[:4]) - bound(moved[1], targets[:4], weights[:4])) / 2e-2
            assert float(gradient[at]) == pytest.approx(float(slope), abs=2e-3)


def test_distillation_is_hintons_and_its_gradient_keeps_its_size(rows: Any) -> None:
    """T² · KL of torch; for a high temperature the gradient tends to that of matching centred logits / classes."""
    logits, _, weights = rows
    teacher = logits.flip(0)
    mine = distillation(logits, teacher, weights, temperature=3.0, multi_label=False)
    each = F.kl_div((logits / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(mine, 9 * (each * weights).sum())
    for several in (False, True):
        nothing = distillation(teacher, teacher, weights, temperature=3.0, multi_label=several)
        assert float(nothing) == pytest.approx(0, abs=1e-5)
    logits = logits.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(distillation(logits, teacher, torch.ones(40), temperature=500.0,
                                                   multi_label=False), logits)
    centred = (logits - logits.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    assert torch.allclose(gradient, centred.detach() / 3, atol=2e-2)
