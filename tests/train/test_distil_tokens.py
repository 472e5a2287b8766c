"""Law: token distillation is T² · KL(teacher ‖ student) at the taught tokens, as plain torch gives it, value and
gradient; the teacher is the model of the start; off or untaught it changes nothing; it keeps answers as they were."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from train_kit import adapted, chat, data_artifact, examples, opened

from luthier.adapt.base import open_base
from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.errors import SpecError
from luthier.store import Store
from luthier.train import objectives
from luthier.train.base import Replay, Train, open_tuned, train
from luthier.train.batches import collate
from luthier.train.distil_tokens import TokenDistillation, _ChunkedDivergence
from luthier.train.objectives import Chunked, Plain
from luthier.train.regularizers.lwf import LearningWithoutForgetting
from luthier.train.render import render


def divergence(student, teacher, scale, temperature):
    each = F.kl_div((student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1),
                    reduction="none", log_target=True).sum(-1)
    return temperature**2 * (each * scale).sum()


@pytest.mark.parametrize("layer", [True, False])
@pytest.mark.parametrize("chunk", [1 << 24, 40])
def test_value_and_gradient_are_those_of_plain_torch(monkeypatch, layer, chunk):
    """Also in chunks of two rows."""
    monkeypatch.setattr(objectives, "CHUNK_NUMBERS", chunk)
    torch.manual_seed(0)
    hidden, words = (7, 19) if layer else (19, 19)
    states = torch.randn(9, hidden, requires_grad=True)
    weight, bias = torch.randn(words, hidden, requires_grad=True), torch.randn(words, requires_grad=True)
    theirs, their_weight, their_bias = torch.randn(9, hidden), torch.randn(words, hidden), torch.randn(words)
    scale, leaves = torch.rand(9), [states, weight, bias] if layer else [states]
    mine = states @ weight.t() + bias if layer else states
    wanted = divergence(mine, theirs @ their_weight.t() + their_bias if layer else theirs, scale, 2.5)
    layers = (weight, bias, theirs, their_weight, their_bias) if layer else (None, None, theirs, None, None)
    found = _ChunkedDivergence.apply(states, *layers, scale, 2.5)
    torch.testing.assert_close(found, wanted)
    for got, ref in zip(torch.autograd.grad(3 * found, leaves), torch.autograd.grad(3 * wanted, leaves), strict=True):
        torch.testing.assert_close(got, ref, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [LoRA(rank=4, dropout=0.2), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("path", [Chunked, Plain])
def test_the_teacher_is_the_model_of_the_start(tmp_path, method, path):
    """Against a separate frozen copy, after the weights have moved: loss, gradient, and the weights bit by bit."""
    model = opened(tmp_path, method=method)
    module = model.module
    with torch.no_grad():  # a fresh B of zeros would hide a wrong A
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    teacher = copy.deepcopy(module).eval()
    inner = path(module)
    distilled = TokenDistillation(inner, module, strength=0.7, temperature=2.0)
    rows = [render(model.tokenizer, row, stop_id=model.stop_ids[0]) for row in examples(3, 0, 0)]
    batch = collate([rows[0], *(replace(row, taught=True) for row in rows[1:])], "buckets")
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for inner_module in module.modules():  # dropout off: the reference cannot draw the same masks
        if isinstance(inner_module, torch.nn.Dropout):
            inner_module.p = 0.0
    module.train()
    loss = distilled(batch, 5.0)
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters)

    def logits(one):
        return one(input_ids=batch.input_ids, use_cache=False).logits.flatten(0, 1)[batch.positions]

    with torch.no_grad():
        goal = logits(teacher)
    mine = logits(module)
    told = divergence(mine[batch.taught], goal[batch.taught], 0.7 * batch.weights[batch.taught] / 5.0, 2.0)
    wanted = F.cross_entropy(mine, batch.targets, reduction="sum") / 5.0 + told
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    for got, ref in zip(found, torch.autograd.grad(wanted, parameters), strict=True):
        torch.testing.assert_close(got, ref, rtol=1e-3, atol=1e-6)
    assert distilled.take_taught() == pytest.approx(float(told.detach()), rel=1e-4) and distilled.take_taught() == 0
    assert float(told.detach()) > 1e-4 and len(batch.taught) < len(batch.targets) and module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.eval()
    assert torch.equal(distilled(batch, 5.0), inner(batch, 5.0))  # validation reads the task's loss alone


def best(run):
    return load_file(next((run.path / "best").glob("*.safetensors")))


def test_strength_zero_equals_absence_and_nothing_to_teach_says_so(tmp_path):
    store, said = Store(tmp_path / "store"), []
    model, data = adapted(tmp_path, store), data_artifact(store, examples())
    plain = train(model, data, Train(max_steps=4, replay=Replay()), store=store)
    off = train(model, data, Train(max_steps=4, replay=Replay(),
                                   regularizers=(LearningWithoutForgetting(strength=0.0),)), store=store)
    assert all(torch.equal(value, best(off)[name]) for name, value in best(plain).items())

    class Listening:
        def say(self, text, **facts):
            said.append(text)

        def track(self, *args, **kwargs):
            from luthier.progress import Silent

            return Silent().track(*args, **kwargs)

    train(model, data, Train(max_steps=2, regularizers=(LearningWithoutForgetting(),)), store=store,
          progress=Listening())
    assert any("lwf has nothing to protect" in text for text in said)


def test_other_teachers_are_refused(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(SpecError, match="dark"):
        train(adapted(tmp_path, store), data_artifact(store, examples()),
              Train.model_validate({"regularizers": [{"kind": "dark"}]}), store=store)


def test_replayed_answers_stay_nearer_to_the_base_models(tmp_path):
    """Effect: with the same replayed rows, the base's distribution at their tokens is kept better with lwf; the loss
    that steps.jsonl tells holds what it added."""
    general = [{"instruction": f"What is {n}?", "response": "ZZ" * (1 + n % 3)} for n in range(10)]
    (tmp_path / "general.jsonl").write_text("\n".join(map(json.dumps, general)))
    store = Store(tmp_path / "store")
    model, data = adapted(tmp_path, store, method=Full()), data_artifact(store, examples(20, 0, 0))
    probes = [chat(200 + n, answer="ZZ" * (1 + n % 3)) for n in range(4)]
    base, far = open_base(model), {}
    for name, regularizers in (("lwf", (LearningWithoutForgetting(strength=4.0),)), ("none", ())):
        run = train(model, data, Train(epochs=4, learning_rate=3e-3, regularizers=regularizers,
                                       replay=Replay(share=0.5, source="general.jsonl")), store=store, root=tmp_path)
        tuned, far[name] = open_tuned(run, model), 0.0
        for probe in probes:
            batch = collate([render(base.tokenizer, probe, stop_id=base.stop_ids[0])], "none")
            with torch.no_grad():
                mine, theirs = Plain(tuned.module).states(batch), Plain(base.module).states(batch)
            far[name] += float(divergence(mine, theirs, batch.weights, 1.0)) / len(batch.targets)
        taught = [json.loads(line)["taught"] for line in (run.path / "steps.jsonl").read_text().splitlines()]
        assert (max(taught) > 0.001) == (name == "lwf")
    assert far["lwf"] < 0.6 * far["none"], far
