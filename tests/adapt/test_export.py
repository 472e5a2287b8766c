"""Law: an exported model is base + adapter, never the base, and stops where training stopped."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from luthier.adapt.base import Adapt, adapt, open_model  # noqa: E402
from luthier.adapt.export import export_merged  # noqa: E402
from luthier.adapt.lora import LoRA  # noqa: E402
from luthier.errors import ModelError  # noqa: E402
from luthier.store import Store  # noqa: E402
from luthier.task import Task  # noqa: E402
from luthier.testing import tiny_chat_model  # noqa: E402


@pytest.fixture()
def tuned(tmp_path):
    """A run artifact whose adapter was drawn at random, and its model."""
    store = Store(tmp_path / "store")
    tiny_chat_model(tmp_path / "m")
    artifact = adapt(Task(), Adapt(model=str(tmp_path / "m"), method=LoRA(rank=4), dtype="float32"), store=store)

    def make(folder):
        model = open_model(artifact)
        generator = torch.Generator().manual_seed(3)
        tensors = {name: torch.randn(p.shape, generator=generator) * 0.2
                   for name, p in model.module.named_parameters() if p.requires_grad}
        model.method.save(model.module, tensors, folder / "best")
        return {"best_step": 5}

    return store.build("train", version=0, spec={}, inputs={"model": artifact}, make=make), artifact


def test_the_merged_folder_answers_as_base_plus_adapter(tmp_path, tuned):
    run, artifact = tuned
    figures = export_merged(run, artifact, tmp_path / "out")
    assert 0.5 < figures["changed"] < 1 and figures["rounding_difference"] < 1e-4
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    from luthier.train.base import open_tuned

    reference = open_tuned(run, artifact)
    ids = torch.randint(3, 200, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, reference.module(ids).logits, rtol=1e-4, atol=1e-4)
    assert tokenizer.chat_template == reference.tokenizer.chat_template
    assert plain.generation_config.eos_token_id == [2]


def test_bfloat16_is_written_and_its_rounding_reported(tmp_path, tuned):
    figures = export_merged(*tuned, tmp_path / "out", "bfloat16")
    assert next(iter(load_file(tmp_path / "out" / "model.safetensors").values())).dtype == torch.bfloat16
    assert 0 < figures["rounding_difference"] < 0.2 and figures["max_logit_difference"] < 1e-4
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_export_of_the_bare_base_is_refused(tmp_path, tuned):
    run, artifact = tuned
    file = run.path / "best" / "adapter_model.safetensors"
    zero = {name: torch.zeros_like(t) if "lora_B" in name else t for name, t in load_file(file).items()}
    save_file(zero, file)
    with pytest.raises(ModelError, match="equals the base model"):
        export_merged(run, artifact, tmp_path / "out")


def test_a_merge_that_changes_answers_is_refused(tmp_path, tuned, monkeypatch):
    right = LoRA.merge

    def scaled(self, module):
        for inner in module.modules():
            if hasattr(inner, "lora_A"):
                inner.scaling["default"] *= 1.5
        return right(self, module)

    monkeypatch.setattr(LoRA, "merge", scaled)
    with pytest.raises(ModelError, match="cannot be merged faithfully"):
        export_merged(*tuned, tmp_path / "out")
