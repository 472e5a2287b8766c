import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from image_kit import DATA, blood, check_freezing, check_groups, check_round_trip, features, noise_rows

from luthier.adapt.backbones.base import Row
from luthier.adapt.backbones.image import open_image_backbone
from luthier.adapt.backbones.lite0 import imagenet_head
from luthier.errors import MissingExtra, ModelError
from luthier.models.sources import resolve


def starter(**options):
    try:
        return open_image_backbone("starter:image", **options)
    except MissingExtra as error:
        pytest.skip(str(error))


def test_weights_of_the_package_are_converted_once_to_safetensors(tmp_path, monkeypatch):
    starter()
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    files = resolve("starter:image", purpose="image")
    assert (files.folder / "model.safetensors").is_file() and files.folder.is_relative_to(tmp_path)
    stamp = (files.folder / "model.safetensors").stat().st_mtime_ns
    again = resolve("starter:image", purpose="image")
    assert again == files and (files.folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_with_its_own_head_the_starter_knows_a_daisy_and_a_palace():
    backbone = starter()
    sklearn = pytest.importorskip("sklearn.datasets")
    pictures = [backbone.processor.array(picture) for picture in sklearn.load_sample_images().images]
    head = imagenet_head(resolve("starter:image", purpose="image").folder)
    with torch.inference_mode():
        logits = head(torch.from_numpy(features(backbone, [Row(str(i), p, 1) for i, p in enumerate(pictures)])))
    assert logits.argmax(1).tolist() == [698, 985]  # palace, daisy


def test_groups_freezing_and_round_trip(tmp_path):
    backbone = starter(image_size=32, pretrained=False)
    rows = noise_rows(4, 32)
    assert features(backbone, rows).shape == (4, 1280)
    assert list(backbone.groups()) == ["stem", *(f"stage{n}" for n in range(1, 8)), "top"]
    check_groups(backbone)
    check_freezing(backbone, rows, 5)
    check_round_trip(backbone, rows, tmp_path)


def test_from_scratch_means_random_weights_that_depend_on_the_seed_alone():
    one, same, other = (starter(image_size=32, pretrained=False, seed=seed) for seed in (1, 1, 2))
    rows = noise_rows(2, 32)
    np.testing.assert_array_equal(features(one, rows), features(same, rows))
    assert not np.array_equal(features(one, rows), features(other, rows))


def test_statistics_of_a_network_from_scratch_are_there_after_dozens_of_updates():
    """It must answer in evaluation mode as it learned in training mode, long before a million images have gone by."""
    norm = next(m for m in starter(image_size=32, pretrained=False).modules() if isinstance(m, torch.nn.BatchNorm2d))
    batch = 3 + 5 * torch.randn(16, norm.num_features, 8, 8, generator=torch.Generator().manual_seed(0))
    norm.train()
    for _ in range(40):
        norm(batch)
    learned = norm(batch)
    torch.testing.assert_close(norm.eval()(batch), learned, atol=0.05, rtol=0.05)


def test_bfloat16_features_point_the_same_way():
    rows = [Row("0", starter(image_size=64).processor.decode(path), 1) for path, *_ in blood(1)]
    exact, quick = features(starter(image_size=64), rows), features(starter(image_size=64, dtype="bfloat16"), rows)
    cosine = (exact * quick).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(quick, axis=1)
    assert cosine.min() > 0.99


def test_an_impossible_image_size_is_refused():
    with pytest.raises(ModelError, match="image size 4 "):
        starter(image_size=4)


def in_batches(backbone, rows):
    return np.concatenate([features(backbone, rows[at:at + 50]) for at in range(0, len(rows), 50)])


@pytest.mark.slow
def test_frozen_features_tell_blood_cells_apart():
    linear, split = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.model_selection")
    items = blood(100)
    backbone = starter(image_size=96)
    rows = [Row(str(path), backbone.processor.decode(path), 1) for path, *_ in items]
    began = time.process_time()
    x = in_batches(backbone, rows)
    print(f"{len(rows) / (time.process_time() - began):.0f} images per CPU-second")
    y, slides = np.array([label for _, label, _ in items]), np.array([slide for *_, slide in items])
    train, test = next(split.GroupShuffleSplit(1, test_size=0.3, random_state=0).split(x, y, slides))
    accuracy = linear.LogisticRegression(max_iter=300, C=0.1).fit(x[train], y[train]).score(x[test], y[test])
    print(f"accuracy {accuracy:.3f} on {len(test)}")
    assert accuracy > 0.95


@pytest.mark.slow
def test_frozen_features_tell_clothes_apart():
    linear, scale = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.preprocessing")
    file = DATA / "fashion_mnist/fashion_mnist_8k.npz"
    if not file.is_file():
        pytest.skip(f"no data at {file}")
    data = np.load(file)
    backbone = starter(image_size=64)

    def part(kind, count):
        keep = np.random.default_rng(0).permutation(len(data[f"x_{kind}"]))[:count]
        pixels = [backbone.processor.array(image) for image in data[f"x_{kind}"][keep]]
        return in_batches(backbone, [Row(str(i), p, 1) for i, p in enumerate(pixels)]), data[f"y_{kind}"][keep]

    (x, y), (x_test, y_test) = part("train", 1000), part("test", 500)
    scaler = scale.StandardScaler().fit(x)
    model = linear.LogisticRegression(max_iter=200, C=0.01).fit(scaler.transform(x), y)
    accuracy = model.score(scaler.transform(x_test), y_test)
    print(f"accuracy {accuracy:.3f}")
    assert accuracy > 0.80
