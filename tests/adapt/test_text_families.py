"""Every text family: head swapped, layer groups, frozen groups, two updates, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from text_kit import COLOURS, DECODERS, FAMILIES, adapted, example, folder_of, prepared, rows

from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.predict import logits
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.plans.gradual import Gradual

LABELS = tuple(COLOURS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(params=FAMILIES)
def artifact(request, store, tmp_path):
    return adapted(folder_of(request.param, tmp_path / "model"), store, tmp_path)


def test_groups_hold_every_parameter_once_bottom_first(artifact):
    model = open_label_model(artifact, LABELS)
    groups = model.groups
    held = [name for names in groups.values() for name in names]
    assert sorted(held) == sorted(name for name, _ in model.module.named_parameters())
    assert next(iter(groups)) == "embeddings" and [*groups][-1] == "head"
    assert [*groups][1:-1] == sorted([*groups][1:-1]) and len(groups) >= 3
    words = model.module.backbone.model.get_input_embeddings().weight
    assert any(model.module.get_parameter(name) is words for name in groups["embeddings"])
    assert not [name for name in held if "pooler" in name]


def test_every_parameter_reaches_the_loss(artifact):
    model = open_label_model(artifact, LABELS)
    model.module(model.processor.batch(model.rows(rows()[:4]))).square().sum().backward()
    assert [name for name, value in model.module.named_parameters() if value.grad is None] == []


def test_a_padded_row_says_what_it_says_alone(artifact):
    model = open_label_model(artifact, LABELS)
    read = model.rows(rows()[:6])
    with torch.inference_mode():
        together = model.module(model.processor.batch(read))
        alone = torch.cat([model.module(model.processor.batch([row])) for row in read])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_saved_and_loaded_gives_equal_logits(artifact, tmp_path):
    model = open_label_model(artifact, LABELS, seed=3)
    save_label_model(model, tmp_path / "kept")
    again = load_label_model(tmp_path / "kept")
    assert again.labels == LABELS
    np.testing.assert_allclose(logits(again, again.rows(rows())), logits(model, model.rows(rows())), atol=1e-6)


def test_two_updates_with_lower_groups_frozen_keep_the_contract(artifact, store, tmp_path):
    data = prepared(store, rows(), Task(type="classify"))
    plan = Gradual(when="epoch", every=1.0, groups_at_once=1, lowest=1)
    run = train(artifact, data, Train(epochs=2, batch_size=16, plan=plan, learning_rate=1e-3, validate_every=1),
                store=store, root=tmp_path)
    before, after = open_label_model(artifact, LABELS), open_tuned_labels(run)
    told = (run.path / "contract.txt").read_text("utf-8")
    assert "violated" not in told and run.summary["steps"] == 2
    groups = before.groups
    moved = {group: any(not torch.equal(before.module.get_parameter(n), after.module.get_parameter(n)) for n in names)
             for group, names in groups.items()}
    assert not moved["embeddings"] and moved["head"]


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_is_pooled_at_its_last_real_token(family, store, tmp_path):
    model = open_label_model(adapted(folder_of(family, tmp_path / "model"), store, tmp_path), LABELS)
    assert model.module.pooling == "last"
    read = model.rows([example("a", "short"), example("b", "a good deal longer")])
    inputs = model.processor.batch(read)
    with torch.inference_mode():
        found, hidden = model.module.features(inputs), model.module.backbone(inputs)
    torch.testing.assert_close(found[0], hidden[0, read[0].size - 1])
    torch.testing.assert_close(found[1], hidden[1, -1])


def test_roberta_counts_positions_from_behind_its_pad(store, tmp_path):
    artifact = adapted(folder_of("roberta", tmp_path / "model"), store, tmp_path)
    model = open_label_model(artifact, LABELS)
    assert model.processor.max_length == 128  # 132 positions, two of which no token has; the tokenizer says 128
    (row,) = model.rows([example("a", "x" * 500)])
    assert row.size == 128 and np.isfinite(logits(model, [row])).all()


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_weights_in_bfloat16_load(family, store, tmp_path):
    artifact = adapted(folder_of(family, tmp_path / "model", dtype="bfloat16"), store, tmp_path)
    exact, low = (open_label_model(artifact, LABELS, dtype=dtype) for dtype in ("float32", "bfloat16"))
    read = exact.rows(rows()[:4])
    assert next(low.module.backbone.parameters()).dtype == torch.bfloat16
    np.testing.assert_allclose(logits(low, read), logits(exact, read), atol=0.05)


def test_frozen_layers_of_text_models_have_no_dropout(store, tmp_path):
    model = open_label_model(adapted(folder_of("bert", tmp_path / "model"), store, tmp_path), LABELS)
    model.module.freeze(frozenset(["embeddings", "layer.000"]))
    model.module.train()
    bert = model.module.backbone.model
    assert not any(inner.training for part in (bert.embeddings, bert.encoder.layer[0]) for inner in part.modules())
    assert all(inner.training for inner in bert.encoder.layer[1].modules())
