"""Law: the fast loss is the model's own loss, and so are its gradients."""

from __future__ import annotations

import pytest
import torch
from train_kit import chat, opened

from luthier.train import attention
from luthier.train.attention import rows_of
from luthier.train.batches import collate
from luthier.train.objectives import Chunked, Plain, bare, choose, chunked_cross_entropy
from luthier.train.render import render


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tmp_path):
    found = opened(tmp_path, family=request.param)
    for name, parameter in found.module.named_parameters():
        if "lora_B" in name:  # zeros would hide half of the gradient
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return found


def rendered(model, numbers=range(5)):
    return [render(model.tokenizer, chat(n, answer="word " * (3 + 4 * n)), stop_id=model.stop_ids[0]) for n in numbers]


def test_chunked_equals_transformers_own_loss(model):
    fast = Chunked(model.module)
    for example in rendered(model):
        ids = torch.tensor([example.ids])
        labels = torch.where(torch.tensor([example.loss]), ids, -100)
        own = float(model.module(input_ids=ids, labels=labels).loss.detach())
        assert float(fast(collate([example], "none"), example.num_supervised)) == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("layout", ["packed", "buckets"])
def test_gradients_equal_transformers_own(model, layout):
    examples = rendered(model)
    total = sum(example.num_supervised for example in examples)
    for example in examples:
        ids = torch.tensor([example.ids])
        labels = torch.where(torch.tensor([example.loss]), ids, -100)
        (model.module(input_ids=ids, labels=labels).loss * example.num_supervised / total).backward()
    parameters = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    own = {name: p.grad.clone() for name, p in parameters.items()}
    model.module.zero_grad()
    attention.register()
    bare(model.module).set_attn_implementation(attention.NAME)
    batch = collate(examples, layout)
    with rows_of(batch.lengths):
        Chunked(model.module)(batch, total).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, own[name], rtol=1e-3, atol=2e-6)
        assert float(own[name].norm()) > 0


def test_chunks_and_weights_change_nothing(monkeypatch):
    monkeypatch.setattr("luthier.train.objectives.CHUNK_NUMBERS", 200)  # two rows a chunk
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float32).requires_grad_()
                            for shape in ((7, 16), (100, 16), (100,)))
    targets, scale = torch.randint(100, (7,), generator=generator), torch.rand(7, generator=generator)
    loss = chunked_cross_entropy(hidden, weight, bias, targets, scale)
    found = torch.autograd.grad(3 * loss, (hidden, weight, bias))
    reference = (torch.nn.functional.cross_entropy(hidden @ weight.t() + bias, targets, reduction="none") * scale).sum()
    wanted = torch.autograd.grad(3 * reference, (hidden, weight, bias))
    torch.testing.assert_close(loss, reference)
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_family_that_scales_its_logits_gets_the_plain_path(model, monkeypatch):
    probe = [collate([example], "none") for example in rendered(model)]
    assert choose(model.module, probe, tolerance=1e-5).objective.kind == "chunked"
    causal = bare(model.module)
    forward = causal.forward

    def capped(*args, **kwargs):  # what Gemma 2 does after its output layer
        output = forward(*args, **kwargs)
        output.logits = 30 * torch.tanh(output.logits / 3)
        return output

    monkeypatch.setattr(causal, "forward", capped)
    found = choose(model.module, probe, tolerance=1e-5)
    assert found.objective.kind == "plain" and found.loss <= 1e-5


def test_a_broken_attention_is_not_chosen(model, monkeypatch):
    """The luthier attention stands in only where it gives the model's own loss."""
    probe = [collate([example], "none") for example in rendered(model)]
    right = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *a, **k: (right(*a, **k)[0] * 3, None))
    before = bare(model.module).config._attn_implementation
    assert choose(model.module, probe, tolerance=1e-5).loss <= 1e-5
    assert bare(model.module).config._attn_implementation == before
    monkeypatch.setattr(attention, "attend", right)
    weights = {name: p.clone() for name, p in model.module.named_parameters()}
    choose(model.module, probe, tolerance=1e-5)
    assert all(torch.equal(weights[name], p) for name, p in model.module.named_parameters())
    assert bare(model.module).config._attn_implementation == attention.NAME


def test_plain_and_chunked_agree_on_weights(model):
    examples = [e.__class__(e.id, e.ids, e.loss, 0.5 + i, e.turns) for i, e in enumerate(rendered(model))]
    batch = collate(examples, "buckets")
    assert float(Plain(model.module)(batch, 7.0)) == pytest.approx(float(Chunked(model.module)(batch, 7.0)), rel=1e-5)
