"""A model that learned several tasks answers among the labels of the one that is named."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from label_release_kit import TEXTS, Api, encoder, write_release  # pyright: ignore[reportAttributeAccessIssue]
from test_label_page import model

from luthier.errors import UsageError
from luthier.project.predict import predict
from luthier.serve.base import Serve
from luthier.serve.labels.predictor import open_release
from luthier.task import Task

PARTS = {"money": ("bill", "refund"), "goods": ("box", "parcel")}
LABELS = ("bill", "box", "parcel", "refund")
PROJECT: Any = SimpleNamespace(spec=SimpleNamespace(serve=Serve()))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    from luthier.adapt.backbones.text import open_text_backbone

    root = tmp_path_factory.mktemp("parts")
    backbone = open_text_backbone(encoder(root / "encoder"), source="tiny")
    return write_release(root / "1", model(Task(type="classify"), LABELS, backbone).but(parts=PARTS))


@pytest.fixture(scope="module")
def api(desk, serve_release, key, tmp_path_factory):
    with serve_release(desk, Serve(), tmp_path_factory.mktemp("root")) as found:
        yield Api(found.url, key)


def softmax(values):
    values = np.exp(values - values.max())
    return values / values.sum()


@pytest.mark.parametrize("part", PARTS)
def test_the_answer_is_a_softmax_over_the_part_s_labels(desk, api, part):
    predictor = open_release(desk)
    logits = predictor.logits([one.row for one in predictor.texts(TEXTS)])
    places = [LABELS.index(label) for label in PARTS[part]]
    told = api.post("/v1/classify", {"input": TEXTS, "part": part, "probabilities": True})["data"]
    asked = predict(PROJECT, desk, TEXTS, part=part).rows
    for row, answer, said in zip(logits, told, asked):
        wanted = softmax(row[places].astype(np.float64))
        assert answer["label"] == said["label"] == PARTS[part][int(wanted.argmax())]
        assert list(answer["probabilities"]) == list(PARTS[part]) and len(answer["top"]) == 2
        assert list(answer["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)


def test_without_a_part_all_labels_are_asked(desk, api):
    told = api.post("/v1/classify", {"input": TEXTS, "probabilities": True})["data"]
    assert all(list(row["probabilities"]) == list(LABELS) for row in told)
    card = api.get("/v1/models")["data"][0]["luthier"]
    assert card["parts"] == {name: list(labels) for name, labels in PARTS.items()}


def test_an_unknown_part_is_refused_with_the_known_names(desk, api):
    error = api.post("/v1/classify", {"input": "now", "part": "people"}, status=400)["error"]
    assert error["param"] == "part" and "goods, money" in error["message"]
    error = api.post("/v1/classify", {"input": "now", "part": "money", "explain": True}, status=400)["error"]
    assert error["param"] == "explain"
    with pytest.raises(UsageError, match="no part 'people'; it has: goods, money"):
        predict(PROJECT, desk, ["now"], part="people")
