"""Law: a swapped layer gives the model's own loss and gradient, and one that does not is put back."""

from __future__ import annotations

import pytest
import torch
from train_kit import chat, opened

from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.train import fast
from luthier.train.batches import collate
from luthier.train.objectives import choose
from luthier.train.render import render


def probe(model):
    return [collate([render(model.tokenizer, chat(n, answer="word " * (3 + 4 * n)), stop_id=model.stop_ids[0])], "none")
            for n in range(3)]


def swapped(model) -> int:
    return sum("forward" in inner.__dict__ for inner in model.module.modules())


def gradients(model, batch):
    ids, labels = batch.input_ids, torch.full_like(batch.input_ids, 7)
    model.module.zero_grad()
    model.module(input_ids=ids, labels=labels).loss.backward()
    return {name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None}


def shake(model):
    for index, parameter in enumerate(p for p in model.module.parameters() if p.requires_grad):
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1)


@pytest.mark.parametrize("name", list(fast.SWAPS))
@pytest.mark.parametrize("method", [LoRA(), Full()])
def test_a_swap_gives_the_models_own_gradients_and_can_be_undone(tmp_path, name, method):
    model = opened(tmp_path, method=method)
    shake(model)
    batch = probe(model)[2]
    own = gradients(model, batch)
    undo = fast.SWAPS[name](model.module)
    if name == "lora" and method.kind == "full":
        assert undo is None
        return
    assert undo is not None and swapped(model) > 0
    found = gradients(model, batch)
    assert found.keys() == own.keys()
    for key in own:
        torch.testing.assert_close(found[key], own[key], rtol=1e-4, atol=1e-6)
    undo()
    assert swapped(model) == 0


def test_dropout_keeps_pefts_own_layer(tmp_path):
    assert fast.swap_lora(opened(tmp_path, method=LoRA(dropout=0.1)).module) is None


def test_a_disabled_adapter_is_the_base(tmp_path):
    model = opened(tmp_path)
    shake(model)
    ids = probe(model)[0].input_ids
    with torch.no_grad(), model.module.disable_adapter():
        own = model.module(ids).logits
        fast.swap_lora(model.module)
        assert torch.equal(model.module(ids).logits, own)
    assert not torch.equal(model.module(ids).logits, own)


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_faulty_swap_is_refused(tmp_path, monkeypatch, fault):
    model = opened(tmp_path)
    assert choose(model.module, probe(model), tolerance=1e-5).swaps == ("lora", "norms")
    model = opened(tmp_path / "again")
    if fault == "loss":
        right = fast._RMSNorm.forward
        monkeypatch.setattr(fast._RMSNorm, "forward", staticmethod(lambda ctx, x, w, e: right(ctx, x, w, e) * 1.01))
    else:
        right = fast._RMSNorm.backward
        monkeypatch.setattr(fast._RMSNorm, "backward", staticmethod(lambda ctx, d: right(ctx, d * 1.01)))
    found = choose(model.module, probe(model), tolerance=1e-5)
    assert found.swaps == ("lora",) and found.loss <= 1e-5 and found.gradient <= 1e-4
