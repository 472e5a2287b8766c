"""Laws of the stage: the ends of the table are the models themselves, the artifact stands in a run's place, old rows
are found by lineage, and a killed sweep goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from fit_kit import LABELS, rows  # pyright: ignore[reportMissingImports]
from train_kit import adapted, data_artifact, examples  # pyright: ignore[reportMissingImports]

from luthier.adapt import predict
from luthier.adapt.base import Adapt, adapt, open_base
from luthier.adapt.labelled import load_label_model
from luthier.adapt.lora import LoRA
from luthier.blend.base import Blend, blend, read_table, sweep
from luthier.errors import DataError, ModelError, UsageError
from luthier.evaluate.base import Evaluate, evaluate
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.evaluate.retention import Retention
from luthier.index.rag import Rag
from luthier.prepare.base import read_examples
from luthier.release.base import Gate, Release, read_release, release
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.testing import tiny_encoder
from luthier.train.base import Train, open_tuned, open_tuned_labels, train
from luthier.train.blends.lora_scale import LoraScale
from luthier.train.blends.soup import Soup
from luthier.train.labelled.score import validate
from luthier.train.past import load_past
from luthier.types import write_jsonl

SPEC = Train(epochs=6, batch_size=8, learning_rate=3e-3, verify_resume=False, patience=0)


def prepared(store: Store, first: int, *, turned: bool = False) -> Artifact:
    """Rows whose commonest letter tells the label; `turned`: long texts in which it tells the next label instead."""
    found = []
    for at, (split, count) in enumerate((("train", 48), ("validation", 24), ("test", 12))):
        for row in rows(count, first=first + 100 * at, split=split):
            label = LABELS[(LABELS.index(row.labels[0]) + 1) % 3]
            found.append(replace(row, input=f"{row.input}{'!' * 30}", labels=(label,)) if turned else row)

    def make(folder: Path):
        write_jsonl(folder / "examples.jsonl", found)
        write_json(folder / "labels.json", {"labels": list(LABELS), "multi_label": False})
        return {"disjoint": "question"}

    return store.build("prepare", version=1, spec={}, inputs={"first": first, "turned": turned}, make=make)


class World:
    """Something is learned, then something that contradicts it: the start, and the run that forgets."""

    def __init__(self, root: Path):
        self.root, self.store, self.task = root, Store(root / "store"), Task(type="classify", metric="accuracy")
        tiny_encoder(root / "model", dropout=0.0)
        self.model = adapt(self.task, Adapt(model="./model"), store=self.store, root=root)
        self.before = prepared(self.store, 0)
        self.after = prepared(self.store, 1000, turned=True)
        keep = Train(**{**SPEC.dump(), "keep": {"kind": "reservoir", "size": 12}})
        self.start = train(self.model, self.before, keep, store=self.store, root=root)
        self.run = train(self.model, self.after, keep, store=self.store, root=root, start=self.start)

    def sweep(self, **changes) -> Artifact:
        return sweep(self.run, model=self.model, data=self.after, spec=Blend(**changes), store=self.store,
                     root=self.root)

    def blend(self, at, **changes) -> Artifact:
        return blend(self.run, model=self.model, data=self.after, spec=Blend(at=at, **changes), store=self.store,
                     root=self.root)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_the_ends_of_the_table_are_what_the_start_and_the_run_score(world):
    table = read_table(world.sweep())
    for at, one in ((0, world.start), (-1, world.run)):
        model = open_tuned_labels(one)
        for side, data in (("new", world.after), ("old", world.before)):
            held = read_examples(data, "validation")
            value, loss, _ = validate(model, held, model.rows(held))
            assert table["points"][at][side] == pytest.approx(value)
            assert table["points"][at][f"{side}_loss"] == pytest.approx(loss, rel=1e-5)
    assert table["old"]["where"] == "validation rows of the data before" and table["old"]["n"] == 24
    first, last = table["points"][0], table["points"][-1]
    assert last["new"] > first["new"] + 0.5 and last["old"] < first["old"] - 0.3  # it learned, and it forgot
    assert 0 < table["knee"] < 1  # between them lies a better trade
    chosen = next(row for row in table["points"] if row["share"] == table["knee"])
    assert chosen["distance"] > 0.1 and not chosen["dominated"]


def test_a_blend_stands_in_a_run_s_place(world):
    """Opened, evaluated and released like the run; the released folder answers as the blend does."""
    blended = world.blend(0.5)
    assert not world.blend(0.5).fresh and blended.inputs["model"] == f"adapt/{world.model.id}"
    start, tuned = load_label_model(world.start.path / "best"), load_label_model(world.run.path / "best")
    model = open_tuned_labels(blended)
    theirs = dict(tuned.module.state_dict())
    for name, value in start.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(model.module.state_dict()[name], (value + theirs[name]) / 2)
    report = evaluate(data=world.after, index=None, model=world.model, run=blended, task=world.task, root=world.root,
                      spec=Evaluate(bootstrap_samples=200, labels=LabelEvaluate(latency_rows=0)), store=world.store)
    folder = release(report=report, run=blended, model=world.model, index=None, data=world.after, task=world.task,
                     rag=Rag(), spec=Release(name="desk", system="tuned", gate=Gate(beats=None)), store=world.store,
                     releases=world.root / "releases", force=True, root=world.root)
    lineage = read_release(folder).lineage
    assert lineage["blend"] == f"blend/{blended.id}" and lineage["train"] == f"train/{world.run.id}"
    assert "a = 0.5 (wise)" in (folder / "MODEL_CARD.md").read_text()
    tests = read_examples(world.after, "test")
    released = load_label_model(folder / "model")
    np.testing.assert_array_equal(predict.logits(released, released.rows(tests)),
                                  predict.logits(model, model.rows(tests)))


def test_a_blend_can_be_the_beginning_of_the_next_training(world):
    """It carries on the run's rows, with its own logits; its lineage leads to the rows before."""
    blended = world.blend(0.5)
    past, old = load_past(blended.path / "memory", lambda: None), load_past(world.run.path / "memory", lambda: None)
    assert [row.id for row in past.rows] == [row.id for row in old.rows] and len(past.rows) == 12
    model = open_tuned_labels(blended)
    for row, value in zip(past.rows, predict.logits(model, model.rows(past.rows))):
        np.testing.assert_allclose(past.logits[row.id], value, atol=1e-5)
    third = prepared(world.store, 2000)
    after = train(world.model, third, SPEC, store=world.store, root=world.root, start=blended)
    table = read_table(sweep(after, model=world.model, data=third, spec=Blend(points=(0.5,)), store=world.store,
                             root=world.root))
    assert table["old"]["n"] == 48  # validation rows of both trainings before


def test_auto_takes_the_knee(world):
    found = world.sweep()
    blended = world.blend("auto")
    assert blended.summary["at"] == found.summary["knee"] and blended.summary["why"] == found.summary["why"]
    assert (blended.path / "pareto.html").read_text() == (found.path / "pareto.html").read_text()
    with pytest.raises(UsageError, match=r"blend\.at is null"):
        world.blend(None)


def test_the_start_and_the_trained_model_come_out_bit_for_bit(world):
    for share, one in ((0.0, world.start), (1.0, world.run)):
        mine, theirs = (load_label_model(a.path / "best").module.state_dict() for a in (world.blend(share), one))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_killed_sweep_goes_on_where_it_was(world, monkeypatch):
    from luthier.blend import measure

    asked = []
    real = measure.Bench.score

    def score(self, mix, *, only_new=False):
        known = len(self.known)
        found = real(self, mix, only_new=only_new)
        if len(self.known) > known:
            asked.append(dict(mix))
            if len(asked) == 3:
                raise KeyboardInterrupt
        return found

    monkeypatch.setattr(measure.Bench, "score", score)
    spec = {"points": (0.15, 0.35, 0.55)}
    with pytest.raises(KeyboardInterrupt):
        world.sweep(**spec)
    world.sweep(**spec)
    assert len(asked) == 5 and len({json.dumps(mix) for mix in asked}) == 5  # nothing is measured twice


def test_a_soup_of_seeds_does_not_fall_below_its_best_member(world):
    others = [train(world.model, world.after, SPEC.but(seed=seed), store=world.store, root=world.root,
                    start=world.start) for seed in (1, 2)]
    named = sweep(world.run, model=world.model, data=world.after, store=world.store, root=world.root,
                  spec=Blend(method=Soup(runs=tuple(f"train/{one.id}" for one in others)), points=(0.5,)))
    table = read_table(named)
    assert table["points"][-1]["new"] >= max(member["new"] for member in table["members"])
    assert {member["run"] for member in table["members"]} == {world.run.id, *(one.id for one in others)}
    auto = read_table(world.sweep(method=Soup(), points=(0.5,)))
    assert {member["run"] for member in auto["members"]} == {member["run"] for member in table["members"]}
    with pytest.raises(UsageError, match="no finished run 'nowhere'"):
        world.sweep(method=Soup(runs=("nowhere",)))


def test_what_is_forgotten_is_looked_for_in_every_run_that_is_in_a_blend(world):
    """`luthier forget` must see the run, what it began from, and what was mixed in."""
    from luthier.watch.champion import ancestors

    other = train(world.model, world.after, SPEC.but(seed=5), store=world.store, root=world.root, start=world.start)
    blended = world.blend(0.5, method=Soup(runs=(other.id,)))
    assert {one.id for one in ancestors(blended, world.store)} == {blended.id, world.run.id, other.id, world.start.id}


def test_a_mistake_is_told_in_a_sentence(world):
    with pytest.raises(ModelError, match="lora_scale makes an adapter smaller"):
        world.sweep(method=LoraScale())
    bare = prepared(world.store, 3000)
    (bare.path / "examples.jsonl").write_text("")
    with pytest.raises(DataError, match="no validation rows"):
        sweep(world.run, model=world.model, data=bare, spec=Blend(), store=world.store, root=world.root)


def test_an_assistant_trades_answers_against_general_text(tmp_path):
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store)
    data = data_artifact(store, examples(16, 4))
    run = train(model, data, Train(max_steps=12, learning_rate=2e-2, verify_resume=False), store=store)
    few = Retention(max_items=10)
    found = sweep(run, model=model, data=data, spec=Blend(points=(0.5,)), store=store, root=tmp_path, retention=few)
    table = read_table(found)
    assert table["new"]["better"] == table["old"]["better"] == "lower" and table["old"]["n"] == 10
    assert table["points"][-1]["new"] < table["points"][0]["new"]
    assert run.summary["validation_best"] == pytest.approx(table["points"][-1]["new"], rel=1e-4)
    blended = blend(run, model=model, data=data, spec=Blend(at=0.5), store=store, root=tmp_path, retention=few)
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        base, half, tuned = (m.module(input_ids=ids).logits for m in (
            open_base(model), open_tuned(blended, model), open_tuned(run, model)))
    assert not torch.equal(half, base) and not torch.equal(half, tuned)


def test_an_assistant_s_updates_go_on_from_blends_without_growing_for_ever(tmp_path):
    """Run, update, blend of the two, update from the blend, blend again: each opens, and the rank stays bounded."""
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=LoRA(rank=2, alpha=4))
    data = data_artifact(store, examples(16, 4))
    spec = Train(max_steps=3, learning_rate=1e-2, verify_resume=False)
    options = {"model": model, "data": data, "store": store, "root": tmp_path,
               "retention": Retention(max_items=10, choices="none")}
    here, ranks = train(model, data, spec, store=store), []
    for seed in (1, 2, 3):
        after = train(model, data, spec.but(seed=seed), store=store, start=here)
        here = blend(after, spec=Blend(at=0.5), **options)
        ranks.append(json.loads((here.path / "best" / "adapter_config.json").read_text())["r"])
        assert open_tuned(here, model).name and here.summary["new"]["blend"] > 0
    assert ranks == [4, 8, 8]
