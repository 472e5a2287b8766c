"""Law: every point of the contract, broken on purpose, stops the run with a ContractError that names it."""

from __future__ import annotations

import json

import pytest
import torch
from train_kit import adapted, chat, data_artifact, examples

from luthier.errors import ContractError
from luthier.store import Store
from luthier.train import attention, contract, run, streams
from luthier.train import render as render_module
from luthier.train.base import Train, train
from luthier.train.fit import Learner
from luthier.train.render import Rendered
from luthier.types import Origin

SPEC = Train(max_steps=2, seed=1)


@pytest.fixture()
def start(tmp_path):
    store = Store(tmp_path / "store")

    def begin(rows=None, spec=SPEC, **data):
        return train(adapted(tmp_path, store), data_artifact(store, rows or examples(), **data), spec, store=store)

    begin.store = store
    begin.folder = tmp_path
    return begin


def table(store: Store) -> dict[int, dict]:
    file = next((store.root / "train").glob("*/contract.json"))
    return {row["point"]: row for row in json.loads(file.read_text("utf-8"))}


def test_a_sound_run_keeps_every_point_and_shows_it(start):
    found = start()
    rows = table(start.store)
    assert {point: row["state"] for point, row in rows.items()} == {
        **dict.fromkeys(range(1, 11), "kept"), 8: "does not apply"}
    text = (found.path / "contract.txt").read_text("utf-8")
    assert all(name in text for name in contract.NAMES.values())
    page = (found.path / "preview.html").read_text("utf-8")
    assert page.count('class="on"') > 20 and "http" not in page


def stops(start, point: int, name: str, *args, **kwargs) -> str:
    with pytest.raises(ContractError) as error:
        start(*args, **kwargs)
    assert f"contract point {point} ({name})" in str(error.value)
    assert not list((start.store.root / "train").glob("*/DONE"))
    return str(error.value)


def test_1_mask_shifted_onto_the_question(start, monkeypatch):
    right = render_module.render

    def shifted(*args, **kwargs):
        found = right(*args, **kwargs)
        return Rendered(found.id, found.ids, (False, *found.loss[9:], *[True] * 8), found.weight, found.turns)

    monkeypatch.setattr(run, "render", shifted)
    stops(start, 1, "loss mask")


def test_1_loss_on_the_question_too(start, monkeypatch):
    right = render_module.render

    def everything(*args, **kwargs):
        found = right(*args, **kwargs)
        return Rendered(found.id, found.ids, (False, *[True] * (len(found.ids) - 1)), found.weight, found.turns)

    monkeypatch.setattr(run, "render", everything)
    assert "but its answers read" in stops(start, 1, "loss mask")


def test_1_truncation_that_cuts_every_label(start):
    message = stops(start, 1, "loss mask", spec=SPEC.but(max_length=40, max_truncated_share=1.0))
    assert "20 of 20 examples" in message


def test_2_stop_token_masked(start, monkeypatch):
    right = render_module.render

    def masked(*args, **kwargs):
        found = right(*args, **kwargs)
        return Rendered(found.id, found.ids, (*found.loss[:-1], False), found.weight, found.turns)

    monkeypatch.setattr(run, "render", masked)
    assert "learn to stop" in stops(start, 2, "stop token")


def test_2_serving_stops_on_another_token(tmp_path, start):
    from luthier.adapt.export import check_stops, export_merged

    found = start()
    model = adapted(start.folder, start.store)
    export_merged(found, model, tmp_path / "out")
    check_stops(tmp_path / "out", (2,))
    file = tmp_path / "out" / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": 0}))
    with pytest.raises(ContractError, match=r"contract point 2 \(stop token\)"):
        check_stops(tmp_path / "out", (2,))


def test_3_training_on_another_prompt_than_serving_sends(start, monkeypatch):
    right = render_module.render

    def spaced(*args, **kwargs):
        found = right(*args, **kwargs)
        return Rendered(found.id, (found.ids[0], *found.ids), (False, *found.loss), found.weight, found.turns)

    monkeypatch.setattr(run, "render", spaced)
    stops(start, 3, "template")


def test_4_more_truncation_than_allowed(start):
    rows = [*examples(), chat(99, answer="word " * 60)]
    longest = 120
    message = stops(start, 4, "truncation", rows, SPEC.but(max_length=longest))
    assert "1 of 21 examples cut at 120" in message
    assert start(rows, SPEC.but(max_length=longest, max_truncated_share=0.9)).summary["steps"] == 2


def contaminated(*args, **kwargs):
    """Attention that ignores where one example ends."""
    with attention.rows_of(None):
        return RIGHT(*args, **kwargs)


RIGHT = attention.attend


def test_5_attention_that_crosses_examples(start, monkeypatch):
    monkeypatch.setattr(attention, "attend", contaminated)
    message = stops(start, 5, "packing", spec=SPEC.but(packing="packed"))
    assert "packed loss differs" in message


def test_5_auto_falls_back_to_buckets_and_says_so(start, monkeypatch):
    monkeypatch.setattr(attention, "attend", contaminated)
    found = start(spec=SPEC.but(packing="auto"))
    assert found.summary["layout"] == "buckets" and "buckets loss" in table(start.store)[5]["text"]


def test_5_positions_that_do_not_restart(start, monkeypatch):
    from luthier.train import batches

    right = batches.collate

    def running(items, layout, pad_id=0):
        batch = right(items, layout, pad_id)
        batch.position_ids.copy_(torch.arange(batch.position_ids.shape[1]).expand_as(batch.position_ids))
        return batch

    monkeypatch.setattr(contract, "collate", running)
    # a random model with RoPE only sees distances, so give it a learned position table
    store = start.store
    with pytest.raises(ContractError, match=r"contract point 5 \(packing\)"):
        train(adapted(start.folder, store, family="gpt2"), data_artifact(store, examples()),
              SPEC.but(packing="packed"), store=store)


def test_6_a_mean_of_means(start, monkeypatch):
    right = Learner.gradients

    def mean_of_means(self, items, **options):
        objective = self.objective
        number = len(self.feed.passes(items))
        self.objective = lambda batch, _: objective(batch, float(batch.weights.sum()) * number)
        try:
            return right(self, items, **options)
        finally:
            self.objective = objective

    monkeypatch.setattr(Learner, "gradients", mean_of_means)
    rows = [chat(n, answer="word " * (1 + 5 * n)) for n in range(10)]
    stops(start, 6, "accumulation", rows)


@pytest.mark.parametrize("leak", ["document", "passage", "text"])
def test_7_a_planted_leak(start, leak):
    rows = examples()
    answer = "The oak stands in the yard behind the mill and is two hundred years old."
    if leak == "document":
        rows.append(chat(77, split="test", document="d3"))
    elif leak == "passage":
        source = Origin(maker="document", step="faq", documents=("dx",), passages=("p1",))
        rows += [chat(70, origin=source), chat(77, split="validation", origin=source)]
    else:
        rows += [chat(70, answer=answer), chat(77, split="test", answer=answer.replace("yard", "Yard,"))]
        rows[-1] = chat(77, split="test", answer=answer, input=rows[-2].input)
    assert "e77" in stops(start, 7, "leak", rows, disjoint="passage" if leak == "passage" else "document")


def test_9_a_frozen_adapter(start, monkeypatch):
    from luthier.adapt.lora import LoRA

    right = LoRA.attach

    def detached(self, module, *, seed):
        found = right(self, module, seed=seed)
        for inner in found.modules():
            if hasattr(inner, "lora_B"):
                inner.lora_B["default"].register_forward_hook(lambda m, args, out: out.detach())
        return found

    monkeypatch.setattr(LoRA, "attach", detached)
    stops(start, 9, "layer groups")


def test_9_one_layer_frozen(start, monkeypatch):
    monkeypatch.setattr(run.TextRun, "prepare_learner", _freeze_first(run.TextRun.prepare_learner))
    assert "layer.000" in stops(start, 9, "layer groups", spec=SPEC.but(weight_decay=0.1))


def _freeze_first(right):
    def prepare(self):
        right(self)
        for name, parameter in self.model.module.named_parameters():
            if name in self.model.groups["layer.000"]:
                parameter.register_hook(lambda gradient: gradient * 0)

    return prepare


def test_9_a_base_weight_that_moves(start, monkeypatch):
    right = Learner.update

    def leaky(self, *args, **kwargs):
        done = right(self, *args, **kwargs)
        with torch.no_grad():
            next(p for p in self.module.parameters() if not p.requires_grad).view(-1)[0] += 1e-3
        return done

    monkeypatch.setattr(Learner, "update", leaky)
    assert "frozen" in stops(start, 9, "layer groups", spec=SPEC.but(verify_resume=False))


def test_10_a_checkpoint_that_forgets_the_optimizer(start, monkeypatch):
    right = streams.load_checkpoint

    def forgetful(path, learner):
        memory = right(path, learner)
        learner.optimizer.adam.state.clear()
        return memory

    monkeypatch.setattr(streams, "load_checkpoint", forgetful)
    stops(start, 10, "resume")
