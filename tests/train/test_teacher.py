"""Laws of distillation from a named model, and that its answers are learned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_kit import LABELS, Bench, rows
from PIL import Image

from luthier.adapt import predict
from luthier.adapt.base import Adapt, adapt
from luthier.adapt.labelled import open_label_model, save_label_model
from luthier.adapt.network import LabelModel
from luthier.errors import ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.testing import check_spec
from luthier.train.base import Train
from luthier.train.labelled.fit import fit_once
from luthier.train.regularizers import REGULARIZERS, Setting
from luthier.train.regularizers.teacher import Teacher
from luthier.types import Example, Origin

FEW = ("bee", "ant")
"""What the teacher knows of the three labels, in another order."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("teacher"), dropout=0.0)


@pytest.fixture(scope="module")
def big(bench: Bench) -> LabelModel:
    """A teacher that knows two labels, saved as a release is."""
    job = bench.job("big-run", rows(24, labels=FEW), (), epochs=6, learning_rate=3e-3, verify_resume=False)
    model = fit_once(job.but(open=lambda seed: open_label_model(bench.adapted, FEW, seed=seed))).model
    save_label_model(model, bench.folder / "big/1/model")
    return model


def setting(bench: Bench, examples: Any, **changes: Any) -> Setting:
    return Setting(**{"model": bench.open(0), "rows": (), "examples": examples, "root": bench.folder, **changes})


def test_the_spec_keeps_the_laws() -> None:
    check_spec(REGULARIZERS, Teacher(model="releases/big/1", strength=0.5))


def test_its_answers_go_by_id_and_label_name(bench: Bench, big: LabelModel) -> None:
    data = rows(9)
    found = Teacher(model="big/1").teach(setting(bench, data))
    for row, values in zip(data, predict.logits(big, big.rows(data, targets=False))):
        np.testing.assert_allclose(found[row.id], [values[1], values[0], np.nan], rtol=1e-4, atol=1e-4)
    assert LABELS == ("ant", "bee", "cat")
    assert Teacher(model="big/1", strength=0.0).teach(setting(bench, data)) == {}


def test_a_first_training_learns_its_answers(bench: Bench, big: LabelModel) -> None:
    """Effect: labels drawn at random teach nothing; a strong teacher beside them is learned, on unseen texts too."""
    data = [replace(row, labels=(label,)) for row, label in zip(rows(36, labels=FEW), ["bee", "bee", "ant"] * 12)]
    unseen = rows(30, first=900, labels=FEW)

    def right(name: str, regularizers: Any) -> float:
        job = bench.job(name, data, (), regularizers=regularizers, epochs=6, learning_rate=3e-3, verify_resume=False)
        found = fit_once(job.but(check_labels=False)).model
        said = predict.logits(found, found.rows(unseen))[:, :2].argmax(-1)
        return float(np.mean([LABELS[at] == row.labels[0] for at, row in zip(said, unseen)]))  # type: ignore[index]

    assert right("taught", (Teacher(model="big/1", strength=10.0),)) > 0.9
    assert right("alone", ()) < 0.75


def test_images_are_read_from_the_project_folder(tmp_path: Path) -> None:
    """The teacher of an image task finds the files by itself, though the rows hold none."""
    (tmp_path / "img").mkdir()
    data = []
    for at in range(4):
        pixels = np.random.default_rng(at).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"img/{at}.png")
        data.append(Example(id=f"i{at}", input="", target=None, labels=("ant",), image=f"img/{at}.png",
                            origin=Origin(maker="human", step="rows")))
    adapted = adapt(Task(type="image"), Adapt(model="mlp:8", pretrained=False), store=Store(tmp_path / "s"),
                    root=tmp_path)
    model = open_label_model(adapted, LABELS, seed=0)
    model.processor.root = tmp_path  # type: ignore[attr-defined]
    save_label_model(model, tmp_path / "big")
    found = Teacher(model="big").teach(Setting(model=open_label_model(adapted, LABELS, seed=1), rows=(), examples=data,
                                               root=tmp_path))
    known = predict.logits(model, model.rows(data))
    np.testing.assert_allclose(np.stack([found[e.id] for e in data]), known, atol=1e-5)


def test_every_file_counts_for_the_runs_id(bench: Bench, big: LabelModel, tmp_path: Path) -> None:
    shutil.copytree(bench.folder / "big", tmp_path / "big")
    spec = Train(regularizers=(Teacher(model="big/1"),))
    before = spec.inputs(tmp_path)
    assert {name.rsplit("/", 1)[-1] for name in before} >= {"model.safetensors", "network.json", "backbone.json"}
    assert before == spec.inputs(bench.folder), "the same files elsewhere are the same"
    file = tmp_path / "big/1/model/network.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "temperature": 2.0}))
    assert spec.inputs(tmp_path) != before


def test_a_folder_without_a_teacher_is_one_sentence(bench: Bench, big: LabelModel) -> None:
    for path, what in (("nowhere", r"'nowhere' does not exist"), ("model", r"'model' holds no model of a labelled")):
        with pytest.raises(ModelError, match=what):
            Train(regularizers=(Teacher(model=path),)).inputs(bench.folder)
    other = bench.open(0).but(labels=("x", "y", "z"))
    with pytest.raises(ModelError, match="knows none of the labels x, y, z"):
        Teacher(model="big/1").teach(setting(bench, rows(3), model=other))
