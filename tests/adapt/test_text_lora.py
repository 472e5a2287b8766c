"""LoRA for labelled tasks: small matrices beside a frozen backbone, merged when the model is saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from text_kit import COLOURS, adapted, folder_of, prepared, rows

from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.lora import LoRA
from luthier.adapt.predict import logits
from luthier.errors import ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.plans.gradual import Gradual

LABELS = tuple(COLOURS)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def opened(family, tmp_path, store, **settings):
    artifact = adapted(folder_of(family, tmp_path / family), store, tmp_path, method=LoRA(**settings))
    return open_label_model(artifact, LABELS)


def shaken(model):
    """B is zero at first, which would hide a fault."""
    with torch.no_grad():
        for value in model.module.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.1)
    return model


@pytest.mark.parametrize("family", ["bert", "modernbert", "albert", "gpt2", "llama"])
def test_an_untrained_adapter_changes_nothing_and_only_it_and_the_head_train(family, tmp_path, store):
    plain = open_label_model(adapted(folder_of(family, tmp_path / family), store, tmp_path), LABELS)
    model = opened(family, tmp_path, store)
    read = plain.rows(rows())
    np.testing.assert_array_equal(logits(model, read), logits(plain, read))
    trains = [name for name, value in model.module.named_parameters() if value.requires_grad]
    assert trains and all("lora_" in name or name.startswith("head.") for name in trains)
    held = [name for names in model.groups.values() for name in names]
    assert sorted(held) == sorted(name for name, _ in model.module.named_parameters())


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "gpt2", "llama"])
def test_a_saved_model_has_plain_weights_and_the_same_logits(family, tmp_path, store):
    model = shaken(opened(family, tmp_path, store))
    read = model.rows(rows())
    before = logits(model, read)
    save_label_model(model, tmp_path / "kept")
    again = load_label_model(tmp_path / "kept")
    assert not [name for name in again.module.state_dict() if "lora" in name or "base_layer" in name]
    np.testing.assert_allclose(logits(again, read), before, atol=2e-6)
    np.testing.assert_array_equal(logits(model, read), before)  # saving left the model as it was


def test_layers_counts_from_the_top_and_targets_are_names(tmp_path, store):
    model = opened("bert", tmp_path, store, layers=1, targets=("query", "value"))
    adapters = {name.split(".lora_")[0] for name, _ in model.module.named_parameters() if ".lora_" in name}
    assert adapters == {f"backbone.model.encoder.layer.2.attention.self.{kind}" for kind in ("query", "value")}


def test_unknown_targets_are_refused_with_the_known_ones(tmp_path, store):
    with pytest.raises(ModelError, match=r"q_proj.*its linear layers are: dense, key, query, value"):
        opened("bert", tmp_path, store, targets=("q_proj",))


@pytest.mark.parametrize("task", ["classify", "tag", "embed"])
def test_training_moves_adapters_and_head_only(task, tmp_path, store):
    artifact = adapted(folder_of("bert", tmp_path / "bert"), store, tmp_path, method=LoRA(rank=4), task=Task(type=task))
    data = prepared(store, rows(task, validation=0), Task(type=task))
    run = train(artifact, data, Train(epochs=3, batch_size=16, learning_rate=3e-2,
                                      plan=Gradual(groups_at_once=2, divide_by=1)), store=store, root=tmp_path)
    labels = () if task == "embed" else LABELS
    before, after = open_label_model(artifact, labels), open_tuned_labels(run)
    merged = before.method.merged_state(before.module)
    moved = {name for name, value in after.module.state_dict().items() if not torch.allclose(merged[name], value)}
    assert any("encoder" in name for name in moved)
    assert all(("encoder" in name and name.endswith(("query.weight", "key.weight", "value.weight", "dense.weight")))
               or name.startswith("head.") for name in moved)
    assert run.summary["method"] == "lora"


def test_vit_takes_adapters_and_a_network_of_convolutions_says_that_it_cannot(tmp_path, store):
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
                       patch_size=16)).save_pretrained(tmp_path / "vit")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    for name in ("vit", "resnet"):
        (tmp_path / name / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    task = Task(type="image")
    artifact = adapted(tmp_path / "vit", store, tmp_path, task=task, method=LoRA(rank=2, layers=1))
    model = shaken(open_label_model(artifact, LABELS))
    groups = {group for group, names in model.groups.items() if any(".lora_" in name for name in names)}
    assert len(groups) == 1 and groups < {*model.groups} and "2" in next(iter(groups))
    pixels = {"pixels": torch.rand(2, 3, 32, 32)}
    with torch.inference_mode():
        wanted = model.module(pixels)
        save_label_model(model, tmp_path / "kept")
        torch.testing.assert_close(load_label_model(tmp_path / "kept").module(pixels), wanted, rtol=0, atol=2e-6)
    with pytest.raises(ModelError, match=r"no linear layer.*convolutions"):
        open_label_model(adapted(tmp_path / "resnet", store, tmp_path, task=task, method=LoRA()), LABELS)
