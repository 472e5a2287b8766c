import numpy as np
import pytest
import torch

from luthier.train.mixes import MIXES, Mix
from luthier.train.mixes.cutmix import Cutmix
from luthier.train.mixes.mixup import Mixup

SPECS = [Mixup(), Mixup(alpha=2), Cutmix(chance=1), Cutmix(chance=1, alpha=0.3)]


def batch(rows=6, classes=4, side=16):
    draws = np.random.default_rng(0)
    pixels = torch.from_numpy(draws.normal(size=(rows, 3, side, side)).astype(np.float32))
    return pixels, torch.eye(classes)[torch.arange(rows) % classes]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_targets_stay_shares_that_sum_to_one_and_the_input_stays(spec):
    pixels, targets = batch()
    before = pixels.clone(), targets.clone()
    for seed in range(30):
        mixed, soft = spec.mix(pixels, targets, np.random.default_rng(seed))
        assert mixed.shape == pixels.shape and soft.shape == targets.shape and mixed.dtype == pixels.dtype
        torch.testing.assert_close(soft.sum(1), torch.ones(len(soft)))
        assert soft.min() >= 0
    assert torch.equal(pixels, before[0]) and torch.equal(targets, before[1])
    assert isinstance(spec, Mix) and MIXES.get(spec.kind) is type(spec)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_seed_gives_the_same_a_batch_of_one_stays_and_chance_zero_is_absence(spec):
    pixels, targets = batch()
    one, two = (spec.mix(pixels, targets, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    for off, (x, y) in ((spec, batch(rows=1)), (spec.but(chance=0.0), batch())):
        mixed, soft = off.mix(x, y, np.random.default_rng(3))
        torch.testing.assert_close(mixed, x)
        torch.testing.assert_close(soft, y)


def test_mixup_blends_pixels_and_labels_by_one_share():
    pixels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 5, 5)
    targets = torch.eye(4)
    mixed, soft = Mixup(alpha=1).mix(pixels, targets, np.random.default_rng(2))
    torch.testing.assert_close(mixed[:, 0, 0, 0], soft @ torch.arange(4.0))


def test_cutmix_labels_are_the_areas_that_are_seen():
    pixels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous()
    for seed in range(50):
        mixed, soft = Cutmix(chance=1).mix(pixels, torch.eye(4), np.random.default_rng(seed))
        seen = torch.stack([(mixed[:, 0] == label).float().mean(dim=(1, 2)) for label in range(4)], dim=1)
        torch.testing.assert_close(soft, seen)


def test_several_classes_at_once_are_mixed_too():
    pixels, _ = batch(rows=2)
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    _, soft = Mixup(alpha=1).mix(pixels, targets, np.random.default_rng(8))
    torch.testing.assert_close(soft[:, 0], soft[:, 1])
    torch.testing.assert_close(soft[:, 0] + soft[:, 2], torch.ones(2))


def test_the_share_follows_beta():
    draws = np.random.default_rng(0)
    pixels = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    shares = [float(Mixup(alpha=0.5).mix(pixels, torch.eye(2), draws)[1].max()) for _ in range(2000)]
    spread = np.random.default_rng(1).beta(0.5, 0.5, 4000)
    swapped = np.array([s for s in shares if s < 1])
    assert np.mean(swapped) == pytest.approx(np.maximum(spread, 1 - spread).mean(), abs=0.02)
