import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from image_kit import check_freezing, check_groups, check_round_trip, features, noise_rows

from luthier.adapt.backbones.image import open_image_backbone
from luthier.adapt.export_keras import export_keras, export_saved_model
from luthier.adapt.head import Head
from luthier.adapt.network import LabelModel, Network
from luthier.errors import MissingExtra, ModelError
from luthier.task import Task

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras was imported with another backend", allow_module_level=True)

FAMILIES = {
    "VGG16": (32, ["block1", "block2", "block3", "block4", "block5"]),
    "InceptionV3": (75, ["stem", *(f"mixed{n}" for n in range(11))]),
    "EfficientNetB0": (32, ["stem", *(f"block{n}" for n in range(1, 8)), "top"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_groups_cover_freeze_and_come_back(name, tmp_path):
    size, groups = FAMILIES[name]
    backbone = open_image_backbone(f"keras:{name}", image_size=size)
    rows = noise_rows(3, size)
    assert features(backbone, rows).shape == (3, backbone.width)
    assert list(backbone.groups()) == groups
    check_groups(backbone)
    assert not [n for n, _ in backbone.named_parameters() if "moving" in n or n.endswith(".mean")]
    check_freezing(backbone, rows, len(groups) // 2)
    check_round_trip(backbone, rows, tmp_path)


@pytest.mark.parametrize(("name", "size", "first", "last"), [("MobileNetV2", 32, "stem", "top"),
                                                             ("ResNet50", 32, "stem", "conv5")])
def test_other_networks_of_keras_applications_have_groups(name, size, first, last):
    backbone = open_image_backbone(f"keras:{name}", image_size=size)
    check_groups(backbone)
    groups = list(backbone.groups())
    assert (groups[0], groups[-1]) == (first, last)


def small(classes=3, size=32, head=True):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    body = keras.Sequential([keras.Input((size, size, 3)), layers.Rescaling(1 / 255),
                             layers.Conv2D(8, 3, strides=2), layers.BatchNormalization(), layers.ReLU(),
                             layers.SeparableConv2D(16, 3), layers.BatchNormalization(), layers.ReLU(),
                             layers.Conv2D(24, 3)], name="body")
    tail = [layers.Dropout(0.5), layers.Dense(classes, activation="softmax")] if head else []
    return keras.Sequential([keras.Input((size, size, 3)), body, layers.GlobalAveragePooling2D(), *tail], name="mine")


def saved(tmp_path, **options):
    model = small(**options)
    model.save(tmp_path / "mine.keras")
    return model, tmp_path / "mine.keras"


def test_a_users_keras_file_opens_without_its_head_and_gives_what_the_head_read(tmp_path):
    model, file = saved(tmp_path)
    backbone = open_image_backbone(str(file))
    assert backbone.width == 24 and backbone.processor.size == 32
    rows = noise_rows(4, 32)
    raw = np.stack([row.data for row in rows]).astype(np.float32)
    found = features(backbone, rows)
    dense = model.layers[-1]
    logits = found @ dense.kernel.value.detach().numpy() + dense.bias.value.detach().numpy()
    expected = model(raw, training=False).detach().numpy()
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1).numpy(), expected, atol=1e-5)
    assert len(backbone.groups()) >= 3
    check_groups(backbone)
    check_freezing(backbone, rows, 2)
    check_round_trip(backbone, rows, tmp_path / "kept")


def test_the_names_of_weights_do_not_depend_on_how_many_models_were_built(tmp_path):
    _, file = saved(tmp_path)
    first = list(open_image_backbone(str(file)).state_dict())
    small()
    model = small()
    model.save(file)
    assert list(open_image_backbone(str(file)).state_dict()) == first


def test_random_weights_depend_on_the_seed_alone_and_leave_pythons_generator_alone(tmp_path):
    import random

    _, file = saved(tmp_path)
    rows = noise_rows(2, 32)
    random.seed(7)
    expected = random.random()
    random.seed(7)
    one, same, other = (features(open_image_backbone(str(file), pretrained=False, seed=s), rows) for s in (1, 1, 2))
    assert random.random() == expected
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, features(open_image_backbone(str(file)), rows))


def test_a_process_can_be_sent_the_network(tmp_path):
    _, file = saved(tmp_path)
    backbone = open_image_backbone(str(file))
    rows = noise_rows(2, 32)
    np.testing.assert_array_equal(features(pickle.loads(pickle.dumps(backbone)), rows), features(backbone, rows))


@pytest.mark.slow
def test_weights_files_fill_a_named_network(tmp_path):
    network = keras.applications.MobileNetV2(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    network.save_weights(tmp_path / "w.weights.h5")
    backbone = open_image_backbone(f"keras:MobileNetV2@{tmp_path / 'w.weights.h5'}", image_size=32)
    rows = noise_rows(2, 32)
    raw = np.stack([row.data for row in rows]).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(features(backbone, rows), network(raw, training=False).detach().numpy(), atol=1e-5)
    with pytest.raises(ModelError, match="do not fit"):
        open_image_backbone(f"keras:VGG16@{tmp_path / 'w.weights.h5'}", image_size=32)


@pytest.mark.parametrize("name", ["VGG16", "InceptionV3", "ResNet50V2", "DenseNet121", "EfficientNetB0", "MobileNet",
                                  "MobileNetV2", "MobileNetV3Small", "ConvNeXtTiny", "Xception", "ResNet50"])
def test_values_are_scaled_as_keras_applications_does(name):
    from luthier.adapt.backbones.image_processor import ImageProcessor
    from luthier.adapt.backbones.keras_open import prepared

    modules = {"VGG16": "vgg16", "InceptionV3": "inception_v3", "ResNet50V2": "resnet_v2", "DenseNet121": "densenet",
               "EfficientNetB0": "efficientnet", "MobileNet": "mobilenet", "MobileNetV2": "mobilenet_v2",
               "MobileNetV3Small": "mobilenet_v3", "ConvNeXtTiny": "convnext", "Xception": "xception",
               "ResNet50": "resnet"}
    rows = noise_rows(2, 8)
    raw = np.stack([row.data for row in rows]).astype(np.float32)
    expected = getattr(keras.applications, modules[name]).preprocess_input(raw.copy())
    processor = ImageProcessor(size=8, **prepared(name.lower(), None))
    found = processor.batch(rows)["pixels"].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def label_model(file, *, hidden=None):
    labels = ("a", "b", "c", "d")
    task = Task(type="image", labels=labels)
    head = Head() if hidden is None else Head(hidden=hidden)
    network = Network(open_image_backbone(str(file)), task, outputs=4, head=head, pooling="mean", seed=0)
    return LabelModel(network.eval(), task, labels, "mine", None)


@pytest.mark.parametrize("hidden", [None, 12])
def test_an_exported_model_takes_raw_images_and_answers_as_the_trained_one(hidden, tmp_path):
    _, file = saved(tmp_path)
    model = label_model(file, hidden=hidden).but(temperature=1.7)
    rows = noise_rows(5, 32)
    path = export_keras(model, tmp_path / "out" / "tuned.keras")
    assert json.loads((path.parent / "tuned.labels.json").read_text()) == {"labels": ["a", "b", "c", "d"]}
    again = keras.models.load_model(path)
    with torch.inference_mode():
        expected = (model.module(model.processor.batch(rows)) / 1.7).softmax(1)
        found = again(np.stack([row.data for row in rows]).astype(np.float32))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert sorted(p.name for p in path.parent.iterdir()) == ["tuned.keras", "tuned.labels.json"]


@pytest.mark.slow
def test_the_export_of_a_network_that_reads_blue_first_takes_red_first(tmp_path):
    task = Task(type="image", labels=("a", "b"))
    network = Network(open_image_backbone("keras:VGG16", image_size=32), task, outputs=2, head=Head(), pooling="mean",
                      seed=0).eval()
    model = LabelModel(network, task, task.labels, "vgg", None)
    rows = noise_rows(2, 32)
    again = keras.models.load_model(export_keras(model, tmp_path / "vgg.keras"))
    with torch.inference_mode():
        expected = network(network.backbone.processor.batch(rows)).softmax(1)
        found = again(np.stack([row.data for row in rows]).astype(np.float32))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_what_cannot_be_opened_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="did you mean 'keras:VGG16'"):
        open_image_backbone("keras:VGG-16")
    with pytest.raises(ModelError, match="at 32 x 32 pixels: Input size must be at least 75x75"):
        open_image_backbone("keras:InceptionV3", image_size=32)
    with pytest.raises(ModelError, match="there is no weights file at"):
        open_image_backbone("keras:VGG16@nowhere.h5")
    (tmp_path / "bad.keras").write_bytes(b"PK nonsense")
    with pytest.raises(ModelError, match="cannot be opened by Keras"):
        open_image_backbone(str(tmp_path / "bad.keras"))
    _, file = saved(tmp_path)
    with pytest.raises(ModelError, match="takes images of 32 x 32 pixels only"):
        open_image_backbone(str(file), image_size=64)
    with pytest.raises(ModelError, match="float32"):
        open_image_backbone(str(file), dtype="bfloat16")
    (tmp_path / "sm").mkdir()
    (tmp_path / "sm/saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="no layers that could be trained"):
        open_image_backbone(str(tmp_path / "sm"))


def test_code_inside_a_file_never_runs(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x.mean(axis=(1, 2)))(inputs))
    model.save(tmp_path / "evil.keras")
    with pytest.raises(ModelError, match="cannot be opened by Keras"):
        open_image_backbone(str(tmp_path / "evil.keras"))


def test_without_tensorflow_a_saved_model_is_refused_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in ("tensorflow", "tf_keras")
                        else real(name, *a))
    _, file = saved(tmp_path)
    with pytest.raises(MissingExtra, match=r"luthier\[tensorflow\]"):
        export_saved_model(label_model(file), tmp_path / "served")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.keras"]


@pytest.mark.slow
def test_a_saved_model_gives_back_the_weights_it_was_made_from(tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels need the extra tensorflow")
    task = Task(type="image", labels=("a", "b"))
    network = Network(open_image_backbone("keras:MobileNetV2", image_size=32), task, outputs=2, head=Head(),
                      pooling="mean", seed=0).eval()
    folder = export_saved_model(LabelModel(network, task, task.labels, "net", None), tmp_path / "served")
    assert (folder / "saved_model.pb").is_file() and (folder / "labels.json").is_file()
    again = open_image_backbone(f"keras:MobileNetV2@{folder}", image_size=32)
    rows = noise_rows(2, 32)
    np.testing.assert_allclose(features(again, rows), features(network.backbone, rows), atol=1e-6)
    with pytest.raises(ModelError, match="is not that network"):
        open_image_backbone(f"keras:MobileNet@{folder}", image_size=32)
