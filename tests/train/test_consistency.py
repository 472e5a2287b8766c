"""Consistency training: changed copies learn the confident answers to the unchanged rows, under the same guard."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_kit import data_of, example, topics, trained

from luthier.errors import SpecError
from luthier.train.augments.flip import Flip
from luthier.train.augments.word_dropout import WordDropout
from luthier.train.strategies.consistency import Consistency


def test_answers_are_aligned_and_sharpened():
    chances = np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    plain = Consistency(align=False, temperature=0.5).sharpened(chances)
    assert np.allclose(plain, chances**2 / (chances**2).sum(1, keepdims=True))
    assert np.allclose(Consistency(align=False, temperature=1).sharpened(chances), chances)
    aligned = Consistency(temperature=1).sharpened(chances)
    assert aligned[0].argmax() == 1 and aligned[2].argmax() == 0  # against the class that takes over


def test_changed_copies_are_trained_on_and_their_lineage_is_kept(tmp_path):
    rows = topics(labelled=24, unlabelled=60)
    run = trained(tmp_path, rows, strategy=Consistency(views=2, threshold=0.5, guard=False, rounds=2))
    kept = json.loads((run.path / "pseudo.json").read_text())["rows"]
    assert run.summary["pseudo_rows"] == len(kept) > 0
    assert run.summary["train_examples"] == 24 + 2 * len(kept)
    assert all(row["confidence"] >= 0.5 and row["copies"] == 2 for row in kept)
    assert run.summary["guard"]["checked"] is False


def test_the_guard_decides_and_says_so(tmp_path):
    run = trained(tmp_path, topics(labelled=24, unlabelled=60), strategy=Consistency(threshold=0.5))
    told = run.summary["guard"]
    assert told["checked"] and told["n"] == 24 and len(told["by_round"]) == 4
    assert (run.summary["pseudo_rows"] == 0) == told["fell_back"]


def test_an_unreachable_threshold_learns_from_labelled_rows_alone(tmp_path):
    run = trained(tmp_path, topics(labelled=24, unlabelled=60),
                  strategy=Consistency(threshold=0.999999, temperature=1.0, guard=False))
    assert run.summary["pseudo_rows"] == 0 and run.summary["train_examples"] == 24


def test_changes_of_images_are_refused_for_texts(tmp_path):
    with pytest.raises(SpecError, match="'flip' changes images"):
        trained(tmp_path, topics(labelled=24, unlabelled=30), strategy=Consistency(strong=(Flip(),)))


def test_it_works_with_an_encoder_that_trains(tmp_path):
    from luthier.train.plans.all import All

    run = trained(tmp_path, topics(labelled=24, unlabelled=30), plan=All(), epochs=1,
                  strategy=Consistency(strong=(WordDropout(share=0.3),), threshold=0.4, guard=False))
    assert run.summary["plan"] == "all" and run.summary["pseudo_rows"] > 0


def test_images_are_changed_anew_each_time_they_are_seen(tmp_path):
    from PIL import Image
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    from luthier.adapt.base import Adapt, adapt
    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Train, train
    from luthier.train.plans.head import HeadOnly

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
                ).save_pretrained(tmp_path / "resnet")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "resnet")
    rng = np.random.default_rng(0)
    rows = []
    for at in range(32):
        label = ("dark", "light")[at % 2]
        values = rng.integers(0, 90, (32, 32, 3)) + (150 if label == "light" else 0)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{at}.png")
        rows.append(example(at, "", label if at < 20 else None, "train" if at < 12 or at >= 20 else "validation",
                            image=f"{at}.png"))
    store = Store(tmp_path / "store")
    task = Task(type="image", metric="accuracy")
    base = adapt(task, Adapt(model=str(tmp_path / "resnet")), store=store, root=tmp_path)
    spec = Train(plan=HeadOnly(), epochs=1, verify_resume=False,
                 strategy=Consistency(threshold=0.4, guard=False, rounds=1))
    run = train(base, data_of(store, rows, ["dark", "light"]), spec, store=store, root=tmp_path)
    assert run.summary["pseudo_rows"] > 0 and run.summary["cached_features"] is False
    assert run.summary["train_examples"] == 12 + run.summary["pseudo_rows"]
