"""A progressive network is served as one model: by its router, and by the column of a task that is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from label_release_kit import TEXTS, Api, encoder, write_release  # pyright: ignore[reportAttributeAccessIssue]
from test_label_page import model

from luthier.adapt import predict
from luthier.adapt.backbones.text import open_text_backbone
from luthier.adapt.grow_columns import finished, with_column
from luthier.adapt.lora import LoRA
from luthier.adapt.router import Router
from luthier.errors import ModelError
from luthier.release.export_onnx import export_onnx
from luthier.serve.base import Serve
from luthier.serve.labels.predictor import open_release
from luthier.task import Task
from luthier.types import Example, Origin

PARTS = {"money": ("bill", "refund"), "goods": ("box", "parcel", "pallet")}
LABELS = ("bill", "box", "parcel", "pallet", "refund")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = encoder(tmp_path_factory.mktemp("columns") / "encoder")
    found = None
    for at, (name, labels) in enumerate(PARTS.items()):
        fresh = model(Task(type="classify"), labels, open_text_backbone(folder, source="tiny"))
        found = with_column(found, fresh, name, labels, reads=4, adapter=LoRA(rank=2), seed=at)
    width = found.module.backbone.width
    sides = np.random.default_rng(0).normal(size=(2, 1, width)).astype(np.float32)
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    return finished(found, LABELS, Router.of([*sides], [-1.0, -1.0], 0.05))


def test_served_it_answers_by_its_router_and_by_a_named_column(whole, serve_release, key, tmp_path):
    desk = write_release(tmp_path / "1", whole)
    predictor = open_release(desk)
    rows = [one.row for one in predictor.texts(TEXTS)]
    routed = predict.probabilities(predict.logits(whole, rows))
    with serve_release(desk, Serve(), tmp_path / "root") as live:
        api = Api(live.url, key)
        told = api.post("/v1/classify", {"input": TEXTS, "probabilities": True})["data"]
        for answer, wanted in zip(told, routed):
            assert [answer["probabilities"][label] for label in LABELS] == pytest.approx(wanted, abs=1e-5)
        for at, (name, labels) in enumerate(PARTS.items()):
            column = whole.but(module=whole.module.view(at), labels=labels)
            own = predict.probabilities(predict.logits(column, rows))
            told = api.post("/v1/classify", {"input": TEXTS, "part": name, "probabilities": True})["data"]
            for answer, wanted in zip(told, own):
                assert [answer["probabilities"][label] for label in labels] == pytest.approx(wanted, abs=1e-5)
        error = api.post("/v1/classify", {"input": TEXTS[0], "explain": {"method": "integrated_gradients"}},
                         status=400)["error"]
        assert "column of its own" in error["message"]


def test_onnx_is_refused_with_what_to_do(whole, tmp_path):
    some = [Example(id=str(at), input=text, target=None, origin=Origin(maker="human", step="rows"))
            for at, text in enumerate(TEXTS)]
    with pytest.raises(ModelError, match=r"set release\.onnx to false"):
        export_onnx(whole, tmp_path / "model.onnx", some)
