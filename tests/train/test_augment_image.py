from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from luthier.spec import parse
from luthier.train.augments import AUGMENTS, Augment
from luthier.train.augments.colour import Colour
from luthier.train.augments.erase import Erase
from luthier.train.augments.flip import Flip
from luthier.train.augments.noise import Noise
from luthier.train.augments.rotate import Rotate
from luthier.train.augments.scale import Scale
from luthier.train.augments.translate import Translate

NEUTRAL = [Rotate(degrees=0), Translate(share=0), Scale(smallest=1, largest=1), Flip(horizontal=0), Noise(std=0),
           Colour(brightness=0, contrast=0, saturation=0, tint=0), Erase(chance=0)]
ACTIVE = [Rotate(degrees=90), Translate(share=0.3), Scale(smallest=0.5, largest=2), Flip(horizontal=1), Noise(),
          Colour(tint=0.2), Erase(chance=1)]


def picture(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def name(spec):
    return spec.kind


@pytest.mark.parametrize("spec", NEUTRAL, ids=name)
def test_without_strength_the_image_stays_as_it_is(spec):
    np.testing.assert_array_equal(spec.apply(picture(), rng()), picture())


@pytest.mark.parametrize("spec", ACTIVE, ids=name)
def test_shape_and_type_stay_the_input_too_and_a_seed_gives_the_same(spec):
    image = picture()
    image.setflags(write=False)
    changed = spec.apply(image, rng(1))
    assert changed.shape == image.shape and changed.dtype == np.uint8 and changed.flags.c_contiguous
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(spec.apply(image, rng(1)), changed)
    assert isinstance(spec, Augment) and spec.reads == "image"
    assert parse(AUGMENTS.get(spec.kind), {k: v for k, v in spec.dump().items() if k != "kind"}) == spec
    assert AUGMENTS.get(spec.kind) is type(spec)


def test_a_flip_twice_is_no_flip():
    for flip in (Flip(horizontal=1), Flip(horizontal=0, vertical=1)):
        once = flip.apply(picture(), rng())
        np.testing.assert_array_equal(flip.apply(once, rng()), picture())
    np.testing.assert_array_equal(Flip(horizontal=1).apply(picture(), rng()), picture()[:, ::-1])


def test_flips_happen_as_often_as_asked():
    image = np.array([[[0, 0, 0], [9, 9, 9]]], dtype=np.uint8)
    draws, spec = rng(), Flip(horizontal=0.3)
    assert np.mean([spec.apply(image, draws)[0, 0, 0] == 9 for _ in range(2000)]) == pytest.approx(0.3, abs=0.04)


class _Fixed:
    """Stands for a generator that draws one wanted value."""

    def __init__(self, value):
        self.value = value

    def uniform(self, low, high, size=None):
        assert low <= self.value <= high
        return self.value if size is None else np.full(size, self.value)


def fixed(value) -> Any:
    return _Fixed(value)


def test_a_quarter_turn_is_numpys():
    image = picture(16, 16)
    np.testing.assert_array_equal(Rotate(degrees=180).apply(image, fixed(90.0)), np.rot90(image))
    half = Rotate(degrees=180).apply(image, fixed(180.0)).astype(int)
    assert abs(half - np.rot90(image, 2)).max() <= 1  # Pillow counts in fixed point


def test_a_translation_moves_by_whole_pixels_and_mirrors_the_rim():
    image = picture(10, 10)
    moved = Translate(share=0.5).apply(image, fixed(0.2))
    np.testing.assert_array_equal(moved[2:, 2:], image[:-2, :-2])
    np.testing.assert_array_equal(moved[2:, :2], image[:-2, 1::-1])


def test_a_zoom_of_two_shows_the_middle_half():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 200
    assert Scale(smallest=0.5, largest=2).apply(image, fixed(np.log(2.0)))[2:-2, 2:-2].min() == 200
    small = Scale(smallest=0.5, largest=2).apply(image, fixed(np.log(0.5)))
    assert small[17:23, 17:23].min() == 200 and small[20, 13].max() == 0


def test_noise_has_the_asked_spread_and_no_bias():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = Noise(std=10).apply(grey, rng()).astype(float) - 128
    assert noisy.std() == pytest.approx(10, rel=0.02) and abs(noisy.mean()) < 0.2


def test_colour_changes_what_it_names_and_nothing_else():
    image = picture(50, 50)
    brighter = Colour(brightness=0.5, contrast=0, saturation=0)
    ratio = [brighter.apply(np.full((4, 4, 3), 100, np.uint8), rng(s)).mean() / 100 for s in range(300)]
    assert min(ratio) >= 0.5 and max(ratio) <= 1.5 and np.std(ratio) == pytest.approx(0.5 / 3**0.5, rel=0.1)
    flat = np.full((4, 4, 3), 100, np.uint8)
    np.testing.assert_array_equal(Colour(brightness=0, contrast=1, saturation=0).apply(flat, rng()), flat)
    grey = np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(Colour(brightness=0, contrast=0, saturation=1).apply(grey, rng()), grey)


def test_erasing_takes_the_asked_area_and_fills_it_with_the_mean():
    image = picture(60, 80)
    shares = []
    for seed in range(200):
        changed = Erase(chance=1, smallest=0.05, largest=0.3).apply(image, rng(seed))
        filled = (changed == np.rint(image.mean(axis=(0, 1)))).all(axis=2)
        assert (changed[~filled] == image[~filled]).all()
        shares.append(filled.mean())
    assert min(shares) > 0.045 and max(shares) < 0.32 and np.mean(shares) == pytest.approx(0.175, abs=0.02)


def test_a_wrong_range_is_refused():
    for spec in (Scale, Erase):
        with pytest.raises(ValidationError, match="is above largest"):
            spec(smallest=0.9, largest=0.5)
