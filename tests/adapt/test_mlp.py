"""The small network on the pixels: what it computes, how it is named, drawn, saved and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from luthier.adapt.backbones.base import Row
from luthier.adapt.backbones.image import open_image_backbone, restore_image_backbone
from luthier.adapt.backbones.mlp import MlpBackbone
from luthier.adapt.backbones.pixels import shrink
from luthier.adapt.base import Adapt, adapt
from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.predict import logits
from luthier.errors import ModelError
from luthier.models.sources import resolve
from luthier.store import Store
from luthier.task import Task


def rows(num: int = 5, side: int = 28, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [Row(f"r{at}", rng.integers(0, 256, (side, side, 3), dtype=np.uint8), 1) for at in range(num)]


def test_it_computes_relu_layers_on_grey_pixels_of_0_to_1():
    backbone = open_image_backbone("mlp:16x8", seed=3)
    assert isinstance(backbone, MlpBackbone) and backbone.width == 8
    some = rows()
    grey = [np.asarray(row.data, dtype=np.float64) @ np.array([0.299, 0.587, 0.114]) / 255 for row in some]
    value = np.stack(grey).reshape(5, -1)
    for layer in backbone.layers:
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        value = np.maximum(value @ weight.T + bias, 0)
    with torch.no_grad():
        found = backbone(backbone.processor.batch(some)).numpy()
    np.testing.assert_allclose(found, value, atol=1e-5)


def test_a_grey_image_of_its_size_passes_untouched_and_colours_are_kept_where_asked():
    backbone = open_image_backbone("mlp:4")
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    row = Row("a", backbone.processor.fit(Image.fromarray(image).convert("RGB")), 1)
    np.testing.assert_allclose(backbone.processor.batch([row])["pixels"][0, 0].numpy(), image / 255, atol=1e-6)
    colours = open_image_backbone("mlp:4@rgb", image_size=16)
    assert colours.layers[0].in_features == 3 * 16 * 16
    assert colours.processor.batch(rows(2, 16))["pixels"].shape == (2, 3, 16, 16)


def test_seeds_draw_different_weights_and_features_are_never_mixed_up_between_them(tmp_path):
    store = Store(tmp_path / "store")
    adapted = adapt(Task(type="image"), Adapt(model="mlp:8x8"), store=store, root=tmp_path)
    one, same, other = (open_label_model(adapted, ["a", "b"], seed=seed) for seed in (0, 0, 1))
    first = [model.module.backbone.layers[0].weight for model in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_groups_hold_every_parameter_once_bottom_first():
    backbone = open_image_backbone("mlp:8x6x4")
    groups = backbone.groups()
    assert [*groups] == ["layer.000", "layer.001", "layer.002"]
    assert sorted(name for names in groups.values() for name in names) == sorted(dict(backbone.named_parameters()))


def test_saved_and_loaded_it_answers_with_the_same_bits(tmp_path):
    adapted = adapt(Task(type="image"), Adapt(model="mlp:8x8", image_size=20), store=Store(tmp_path / "store"),
                    root=tmp_path)
    model = open_label_model(adapted, ["a", "b", "c"], seed=5)
    save_label_model(model, tmp_path / "saved")
    again = load_label_model(tmp_path / "saved")
    some = rows(7, 20)
    np.testing.assert_array_equal(logits(model, some), logits(again, some))
    assert again.processor.size == 20 and restore_image_backbone(tmp_path / "saved").units == (8, 8)


@pytest.mark.parametrize("source", ["mlp:", "mlp:0x8", "mlp:8x", "mlp:8@blue", "mlp:8 x 8"])
def test_a_source_that_names_no_layers_is_refused(source):
    with pytest.raises(ModelError, match="units of each layer"):
        open_image_backbone(source)


def test_it_reads_no_texts():
    with pytest.raises(ModelError, match="task image"):
        resolve("mlp:8", purpose="encoder")


def test_the_baseline_on_few_pixels_takes_over_its_way_of_decoding():
    assert shrink(open_image_backbone("mlp:4").processor).processor.size == 28
