"""Law: a chat model's training goes on from an earlier run exactly where that one ended; what it kept is replayed at
the shares that the spec says; a kill changes no bit; the model as it was stays at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_kit import adapted, chat, data_artifact, examples

from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.errors import ModelError
from luthier.progress import Silent
from luthier.store import Store
from luthier.train import streams
from luthier.train.base import Replay, Train, open_tuned, train
from luthier.train.batches import Order, collate
from luthier.train.continue_text import begin, pools, restore_weights, sources
from luthier.train.keeps.hardest import Hardest
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.objectives import Plain
from luthier.train.optim import MasterAdamW
from luthier.train.past import FOLDER, load_past
from luthier.train.regularizers.ewc import EWC
from luthier.train.regularizers.l2sp import L2SP
from luthier.train.regularizers.lwf import LearningWithoutForgetting
from luthier.train.render import render
from luthier.train.replay import counts
from luthier.types import Origin

METHODS = [LoRA(rank=4, dropout=0.1), Full()]
IDS = torch.arange(3, 60)[None]


def later(train: int = 12, validation: int = 3) -> list:
    splits = ["train"] * train + ["validation"] * validation
    return [chat(100 + number, split=split) for number, split in enumerate(splits)]


def weights(run):
    return load_file(next((run.path / "best").glob("*.safetensors")))


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def logits(model):
    with torch.no_grad():
        return model.module(IDS).logits


class Chain:
    """A champion, and what a second training needs."""

    def __init__(self, folder: Path, method, dtype: str = "float32", **first):
        self.store = Store(folder / "store")
        self.model = adapted(folder, self.store, method=method, dtype=dtype)
        self.first = data_artifact(self.store, examples(), "first")
        self.second = data_artifact(self.store, later(), "second")
        rate = 2e-2 if method.kind == "lora" else 2e-3
        self.champion = train(self.model, self.first, Train(**{"epochs": 3, "learning_rate": rate, **first}),
                              store=self.store)

    def update(self, **spec):
        return train(self.model, self.second, Train(**{"epochs": 2, **spec}), store=self.store, start=self.champion)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
def test_it_begins_with_the_champions_weights_bit_for_bit(tmp_path, method, dtype):
    """Answers as served; the optimizer's weights are the saved float32 ones, also where the module rounds them; the
    model as it was is still that after the weights have moved, and shares the base's memory beside an adapter."""
    chain = Chain(tmp_path, method, dtype)
    served = open_tuned(chain.champion, chain.model, dtype=dtype)
    begun = begin(chain.model, chain.champion.path, seed=9, dtype=dtype, device="cpu")
    assert torch.equal(logits(begun.model), logits(served))
    trains = {name: p for name, p in begun.model.module.named_parameters() if p.requires_grad}
    assert trains and begun.model.groups and (method.kind == "full" or all("lora_" in name for name in trains))
    optimizer = MasterAdamW(trains, weight_decay=0.0)
    restore_weights(optimizer, chain.champion.path)
    saved = weights(chain.champion)
    for name, master in optimizer.weights().items():
        assert torch.equal(master, saved[name.replace(".default.", ".")].float()), name
    assert torch.equal(logits(begun.model), logits(served))
    with torch.no_grad():
        for parameter in trains.values():
            parameter.add_(0.1)
    assert not torch.equal(logits(begun.model), logits(served))
    before = begun.past.open()
    assert torch.equal(logits(before), logits(served)) and not before.module.training
    assert not any(p.requires_grad for p in before.module.parameters())
    if method.kind == "lora":
        mine = {p.data_ptr() for p in begun.model.module.parameters() if not p.requires_grad}
        shared = {p.data_ptr() for p in before.module.parameters()}
        assert mine <= shared and not {p.data_ptr() for p in trains.values()} & shared


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
def test_an_update_that_helps_nothing_leaves_the_champion_as_it_was(tmp_path, method, dtype):
    chain = Chain(tmp_path, method, dtype)
    run = chain.update(max_steps=2, learning_rate=3.0, warmup_share=0.0, validate_every=1, clip_norm=0.0)
    assert run.summary["best_step"] == 0 and "training began with" in run.summary["note"]
    assert same(weights(run), weights(chain.champion))
    assert torch.equal(logits(open_tuned(run, chain.model)), logits(open_tuned(chain.champion, chain.model)))


@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
def test_it_goes_on_where_the_champion_ended(tmp_path, method):
    """On the champion's own validation rows the update begins with the loss that the champion ended with, and one
    adapter is all that there is."""
    chain = Chain(tmp_path, method)
    run = train(chain.model, chain.first, Train(max_steps=3), store=chain.store, start=chain.champion)
    assert run.summary["validation_before"] == pytest.approx(chain.champion.summary["validation_best"], rel=1e-5)
    assert chain.champion.summary["validation_before"] > run.summary["validation_before"] + 0.01
    assert weights(run).keys() == weights(chain.champion).keys() and not same(weights(run), weights(chain.champion))


def test_a_champion_of_another_method_is_refused(tmp_path):
    chain = Chain(tmp_path, LoRA(rank=4), epochs=1)
    other = adapted(tmp_path, chain.store, method=LoRA(rank=8))
    with pytest.raises(ModelError, match=r"another adapt\.method"):
        train(other, chain.second, Train(), store=chain.store, start=chain.champion)
    with pytest.raises(ModelError, match="another base model"):
        train(adapted(tmp_path, chain.store, method=LoRA(rank=4), seed=3), chain.second, Train(), store=chain.store,
              start=chain.champion)


def test_the_hardest_rows_are_those_that_the_finished_model_finds_hardest(tmp_path):
    store = Store(tmp_path / "store")
    rows = [chat(n, document="one") for n in range(16)]
    model, data = adapted(tmp_path, store, method=Full()), data_artifact(store, rows)
    run = train(model, data, Train(epochs=2, learning_rate=2e-3, keep=Hardest(size=5, doubt=0.0)), store=store)
    tuned, losses = open_tuned(run, model), {}
    for row in rows:
        found = render(tuned.tokenizer, row, stop_id=tuned.stop_ids[0])
        losses[row.id] = float(Plain(tuned.module)(collate([found], "none"), found.num_supervised).detach())
    past = load_past(run.path / FOLDER, lambda: None)
    assert {row.id for row in past.rows} == set(sorted(losses, key=losses.get)[-5:])
    assert all(row.origin.documents == ("one",) for row in past.rows) and past.facts["seen"] == 16


def test_the_store_lives_on_and_nothing_is_kept_that_nobody_asked_for(tmp_path):
    chain = Chain(tmp_path, LoRA(rank=4), epochs=1, keep=Reservoir(size=16))
    run = chain.update(epochs=1, keep=Reservoir(size=16), replay=Replay(source="past", share=0.2))
    rows = load_past(run.path / FOLDER, lambda: None).rows
    names = Counter(int(row.id[1:]) >= 100 for row in rows)
    assert len(rows) == 16 and names[True] and names[False]  # rows of both trainings
    assert not (chain.update(epochs=1).path / FOLDER).exists()


def test_rows_without_classes_are_told_apart_by_document_or_step():
    rows = [chat(0, document="a"), chat(1, document="b"), chat(2, document="a"),
            chat(3, origin=Origin(maker="human", step="pairs")), chat(4, origin=Origin(maker="human", step="faq")),
            chat(5, origin=Origin(maker="human", step="pairs"))]
    assert sources(rows).tolist() == [0, 1, 0, 2, 3, 2]


def test_every_source_has_its_share_of_every_epoch(tmp_path):
    replays = [Replay(share=0.1), Replay(share=0.2, source="past")]
    assert counts(replays, 70) == [10, 20] and counts([Replay(share=0.25)], 30) == [10]
    order = Order(lengths=(5,) * 120, pools=(30, 20), replayed=(10, 20), batch_size=10, seed=0, layout="packed")
    for epoch in range(3):
        seen = np.array([at for update in order.epoch(epoch) for at in update])
        assert sorted(seen[seen < 70]) == list(range(70))
        assert ((seen >= 70) & (seen < 100)).sum() == 10 and sorted(seen[seen >= 100]) == list(range(100, 120))
    general = [at for epoch in range(3) for update in order.epoch(epoch) for at in update if 70 <= at < 100]
    assert sorted(general) == list(range(70, 100))  # the pool is walked through before anything comes twice
    chain = Chain(tmp_path, LoRA(rank=4), epochs=1, keep=Reservoir(size=10))
    run = chain.update(epochs=2, replay=replays)
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    assert run.summary["replayed_per_epoch"] == {"builtin": 2, "past": 3}
    assert Counter(step["epoch"] for step in steps for _ in range(step["examples"])) == {0: 17, 1: 17}


def test_kept_rows_that_are_learned_or_held_out_now_are_not_replayed():
    class Listening(Silent):
        said: list[str] = []

        def say(self, text, **facts):
            self.said.append(text)

    past = load_past(Path("/nowhere"), lambda: None).but(rows=[chat(n) for n in range(6)])
    held = [chat(50, document="d2", answer="Something else entirely grows here, as everyone knows."),
            chat(3, document="d90", split="test")]  # a copy of row 3 from another document
    progress = Listening()
    ((_, rows),) = pools([Replay(source="past")], past, [chat(0)], held, root=Path("/nowhere"), progress=progress)
    assert [row.id for row in rows] == ["e1", "e4", "e5"] and "2 of 5 kept rows are held out" in progress.said[0]
    assert not pools([Replay(source="past")], None, [], [], root=Path("/nowhere"), progress=progress)
    assert "nothing to replay" in progress.said[-1]


class Killed(Exception):
    pass


def dying_at(steps_to_die_at, counted):
    """A stand-in for `streams.counted` that ends the run once at each of these updates."""
    died: list[int] = []

    def stream(steps, memory):
        for done in counted(steps, memory):
            if memory.step in steps_to_die_at and memory.step not in died:
                died.append(memory.step)
                raise Killed
            yield done

    return stream


@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
def test_killed_and_resumed_updates_equal_undisturbed_ones_bit_for_bit(tmp_path, method, monkeypatch):
    """With dropout, replay from two sources, a penalty, distillation and a store."""
    spec = {"epochs": 3, "validate_every": 2, "checkpoint_every_s": 1e-6, "keep": Hardest(size=8),
            "replay": (Replay(share=0.1), Replay(source="past", share=0.2)),
            "regularizers": (LearningWithoutForgetting(), L2SP(strength=0.1))}
    runs = []
    for name in ("straight", "killed"):
        chain = Chain(tmp_path / name, method, keep=Reservoir(size=8), epochs=1)
        if name == "killed":
            monkeypatch.setattr(streams, "counted", dying_at((2, 5), streams.counted))
            for _ in range(2):
                with pytest.raises(Killed):
                    chain.update(**spec)
        runs.append(chain.update(**spec))
    assert same(weights(runs[0]), weights(runs[1]))
    kept = [(run.path / FOLDER / "rows.jsonl").read_text() for run in runs]
    logs = [[(row["loss"], row["penalty"], row["taught"], row["validation"]) for row in
             map(json.loads, (run.path / "steps.jsonl").read_text().splitlines())] for run in runs]
    assert kept[0] == kept[1] and logs[0] == logs[1] and len(logs[0]) == runs[0].summary["planned_steps"]
    assert any(row[1] > 0 for row in logs[0]) and any(row[2] > 0 for row in logs[0])


@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
def test_what_ewc_remembers_holds_the_next_training(tmp_path, method):
    """The first training measures the importances, the update is pulled back by them and by nothing at its start."""
    chain = Chain(tmp_path, method, regularizers=(EWC(),), epochs=1)
    assert load_past(chain.champion.path / FOLDER, lambda: None).kept["ewc"]
    run = chain.update(regularizers=(EWC(strength=100.0),))
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    assert steps[0]["penalty"] == 0.0 and all(step["penalty"] > 0 for step in steps[1:])


@pytest.mark.slow
def test_replaying_kept_rows_keeps_what_they_taught(tmp_path):
    """Effect: after an update on other answers, the loss on the first training's validation rows rises less."""
    first = [chat(n, answer="ZZ" * (1 + n % 3)) for n in range(20)]
    probe = [chat(n, answer="ZZ" * (1 + n % 3)) for n in range(200, 206)]
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=Full())
    champion = train(model, data_artifact(store, first, "first"),
                     Train(epochs=10, learning_rate=3e-3, keep=Reservoir(size=10)), store=store)
    data, losses = data_artifact(store, [chat(n, answer="qq" * (1 + n % 3)) for n in range(300, 320)], "second"), {}
    for name, replay in (("with", Replay(source="past", share=0.4)), ("without", None)):
        tuned = open_tuned(train(model, data, Train(epochs=6, learning_rate=2e-3, replay=replay), store=store,
                                 start=champion), model)
        rows = [render(tuned.tokenizer, row, stop_id=tuned.stop_ids[0]) for row in probe]
        batch = collate(rows, "buckets")
        losses[name] = float(Plain(tuned.module)(batch, len(batch.targets)).detach())
    assert losses["with"] < losses["without"] - 0.5, losses
