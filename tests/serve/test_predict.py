"""`luthier predict`: the server's decisions for texts and files, with a reason for every row that has none."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
from label_release_kit import encoder, picture, write_release  # pyright: ignore[reportAttributeAccessIssue]
from test_label_page import model

from luthier.errors import UsageError
from luthier.project.predict import predict
from luthier.serve.base import Serve
from luthier.serve.labels.predictor import open_release
from luthier.task import Task

PROJECT: Any = SimpleNamespace(spec=SimpleNamespace(serve=Serve()))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    from luthier.adapt.backbones.text import open_text_backbone

    root = tmp_path_factory.mktemp("desk")
    backbone = open_text_backbone(encoder(root / "encoder"), source="tiny")
    return write_release(root / "1", model(Task(type="classify"), ("a", "b"), backbone))


def test_texts_and_files_get_the_predictor_s_decisions(desk, tmp_path):
    texts = ["my parcel is late", "login now"]
    predictor = open_release(desk)
    wanted = [predictor.decide(row, top_k=5) for row in predictor.logits([one.row for one in predictor.texts(texts)])]
    found = predict(PROJECT, desk, texts)
    assert [{key: row[key] for key in wanted[0]} for row in found.rows] == wanted and not found.failed
    (tmp_path / "rows.csv").write_text("id,utterance\n1,my parcel is late\n2,\n3,login now\n")
    out = tmp_path / "out.jsonl"
    made = predict(PROJECT, desk, file=tmp_path / "rows.csv", out=out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert made.failed == 1 and "missing" in rows[1]["error"] and "rows.csv:3" in rows[1]["where"]
    assert [rows[0]["probability"], rows[2]["probability"]] == [row["probability"] for row in wanted]
    (tmp_path / "rows.txt").write_text("\n".join(texts))
    assert [row["best_guess"] for row in predict(PROJECT, desk, file=tmp_path / "rows.txt").rows] == [
        row["best_guess"] for row in wanted]


def test_explanations_are_told_in_words(desk):
    found = predict(PROJECT, desk, ["my parcel is late"], explain="occlusion")
    assert len(found.rows[0]["explanation"]["tokens"]) == 4 and "parcel" in found.text()


@pytest.mark.parametrize(("kwargs", "said"), [
    ({}, "say what to decide"), ({"inputs": ["a"], "file": Path("x")}, "one of them"),
    ({"inputs": ["now"], "explain": "magic"}, "unknown way"),
])
def test_a_call_that_says_too_little_or_too_much_is_refused(desk, kwargs, said):
    with pytest.raises(UsageError, match=said):
        predict(PROJECT, desk, kwargs.pop("inputs", ()), **kwargs)


def test_a_column_is_found_by_name_or_must_be_named(desk, tmp_path):
    (tmp_path / "rows.csv").write_text("one,two\nnow,today\n")
    with pytest.raises(UsageError, match="--column; it has: one, two"):
        predict(PROJECT, desk, file=tmp_path / "rows.csv")
    assert predict(PROJECT, desk, file=tmp_path / "rows.csv", column="two").rows[0]["text"] == "today"


def test_images_are_read_from_files_and_folders_and_a_bad_one_is_told(tmp_path):
    from luthier.adapt.backbones.image_processor import ImageProcessor
    from luthier.adapt.backbones.lite0 import Lite0

    folder = write_release(tmp_path / "1", model(Task(type="image"), ("cat", "dog"), Lite0(ImageProcessor(size=32))))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    found = predict(PROJECT, folder, [str(tmp_path / "in")])
    assert found.failed == 1 and found.rows[0]["label"] in ("cat", "dog") and "b.jpg" in found.rows[1]["error"]
    (tmp_path / "in" / "rows.csv").write_text("image\na.png\n")
    assert predict(PROJECT, folder, file=tmp_path / "in" / "rows.csv").rows[0]["label"] == found.rows[0]["label"]
