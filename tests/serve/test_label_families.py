"""Every family of networks is served over HTTP as it was trained: the same probabilities, from a release folder."""

import base64
import importlib.util
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "adapt"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from label_release_kit import Api, sharpened, write_release  # pyright: ignore[reportMissingImports]
from text_kit import FAMILIES as TEXT  # pyright: ignore[reportMissingImports]
from text_kit import adapted, folder_of  # pyright: ignore[reportMissingImports]

from luthier.adapt import predict
from luthier.adapt.backbones.base import Row
from luthier.adapt.full import Full
from luthier.adapt.head import Head
from luthier.adapt.labelled import open_label_model
from luthier.adapt.network import LabelModel, Network
from luthier.serve.base import Serve
from luthier.store import Store
from luthier.task import Task
from luthier.types import Example, Origin

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras
HERE = Path(__file__).resolve().parent
LABELS = ("ant", "bee", "cat")
KERAS = {"VGG16": 32, "InceptionV3": 75, "EfficientNetB0": 32}


def kit(folder: str, name: str) -> ModuleType:
    """Another test module by path (its names are not unique among the folders)."""
    spec = importlib.util.spec_from_file_location(f"families_{name}", HERE.parent / folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IMAGES = kit("adapt", "test_image_transformers")


def picture(size: int) -> tuple[np.ndarray, str]:
    """Random pixels, and the same as a PNG in base64."""
    from PIL import Image

    pixels = np.random.default_rng(5).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return pixels, base64.b64encode(out.getvalue()).decode()


def check(model: LabelModel, row: Row, body: dict[str, Any], folder: Path, serve_release: Any, key: str) -> None:
    wanted = predict.probabilities(predict.logits(model, [row]))[0]
    release = write_release(folder / "desk" / "1", model)
    with serve_release(release, Serve(), folder / "root") as live:
        said = Api(live.url, key).post("/v1/classify", {**body, "probabilities": True})["data"][0]
    found = said["probabilities"]
    assert said["label"] == LABELS[int(wanted.argmax())]
    np.testing.assert_allclose([found[label] for label in LABELS], wanted, atol=1e-5)


@pytest.mark.parametrize("family", TEXT)
def test_a_text_family_answers_as_it_was_trained(family, tmp_path, serve_release, key):
    base = folder_of(family, tmp_path / "model")
    artifact = adapted(base, Store(tmp_path / "store"), tmp_path, task=Task(type="classify"))
    model = sharpened(open_label_model(artifact, LABELS))
    text = "where is my parcel"
    row = model.processor.read(Example(id="a", input=text, target=None,
                                              origin=Origin(maker="human", step="rows")))
    check(model, row, {"input": text}, tmp_path, serve_release, key)


def image_model(backbone: Any) -> LabelModel:
    task = Task(type="image")
    network = Network(backbone, task, outputs=len(LABELS), head=Head(), pooling="mean", seed=1).eval()
    return sharpened(LabelModel(module=network, task=task, labels=LABELS, name="tiny", method=Full()))


@pytest.mark.parametrize("family", IMAGES.FAMILIES)
def test_an_image_family_answers_as_it_was_trained(family, tmp_path, serve_release, key):
    pixels, sent = picture(64)
    model = image_model(IMAGES.build(family))
    check(model, Row("a", pixels, 1), {"image": sent}, tmp_path, serve_release, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS)
def test_a_keras_family_answers_as_it_was_trained(name, tmp_path, serve_release, key):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    from luthier.adapt.backbones.image import open_image_backbone

    pixels, sent = picture(KERAS[name])
    model = image_model(open_image_backbone(f"keras:{name}", image_size=KERAS[name]))
    check(model, Row("a", pixels, 1), {"image": sent}, tmp_path, serve_release, key)
