"""Laws of a training that begins from an earlier model: what stays, what is stored, what is replayed, and kills."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continual_kit import texts
from data_kit import data_of
from fit_kit import Killed, kill_at
from safetensors.torch import load_file

from luthier.adapt import predict
from luthier.adapt.base import Adapt, adapt
from luthier.adapt.labelled import load_label_model
from luthier.errors import ModelError, SpecError
from luthier.progress import Silent
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.testing import tiny_encoder
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.keeps._order import lots
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.labelled.fit import _Fit
from luthier.train.labelled.run import job_of
from luthier.train.past import FOLDER, load_past
from luthier.train.regularizers.dark import DarkReplay
from luthier.train.regularizers.lwf import LearningWithoutForgetting as Lwf
from luthier.train.replay import Replay
from luthier.types import Example

OLD, ALL = ("ant", "bee"), ("ant", "bee", "cat")
KEEP, REPLAY = Reservoir(size=10), Replay(source="past", share=0.25)
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "verify_resume": False}
FIRST = [*texts(32, OLD, first=0), *texts(8, OLD, first=500, split="validation"),
         *texts(4, OLD, first=600, split="test")]
SECOND = [*texts(30, ALL, first=1000), *texts(9, ALL, first=1500, split="validation"),
          *texts(6, ALL, first=1600, split="test")]


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class World:
    """A base model, and a first training that stored rows."""

    def __init__(self, root: Path):
        self.root, self.store = root, Store(root / "store")
        tiny_encoder(root / "model", dropout=0.1)
        self.base = adapt(Task(type="classify"), Adapt(model="./model"), store=self.store, root=root)
        self.first = self.train(FIRST, keep=KEEP)

    def train(self, rows: list[Example], *, store: Store | None = None, start: Artifact | None = None,
              progress: Any = None, watch: Any = None, **spec: Any) -> Artifact:
        store = store or self.store
        labels = sorted({label for row in rows for label in row.labels or ()})
        return train(self.base, data_of(store, rows, labels), Train(**{**SHORT, **spec}), store=store, root=self.root,
                     start=start, progress=progress or Silent(), watch=watch)

    def job(self, rows: list[Example], folder: str, *, start: Artifact | None = None, progress: Any = None, **spec: Any
            ) -> Any:
        labels = sorted({label for row in rows for label in row.labels or ()})
        return job_of(self.root / folder, self.base, data_of(self.store, rows, labels), Train(**{**SHORT, **spec}),
                      cache=self.store.cache("features"), root=self.root, progress=progress or Silent(), watch=None,
                      start=start or self.first)

    def past(self, run: Artifact) -> Any:
        return load_past(run.path / FOLDER, lambda: load_label_model(run.path / "best"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("continue"))


def test_it_begins_with_the_earlier_weights_bit_for_bit(world: World) -> None:
    """Also the head's rows of old labels; a new label's row is small and its bias the mean of the old ones."""
    before, begun = load_label_model(world.first.path / "best"), world.job(SECOND, "open").open(0)
    assert begun.labels == ALL
    for name, value in before.module.state_dict().items():
        now = begun.module.state_dict()[name]
        assert torch.equal(now[:2] if name.startswith("head.") else now, value), name
    last = begun.module.head[-1]
    assert float(last.weight[2].detach().abs().max()) < 0.15
    assert float(last.bias[2].detach()) == pytest.approx(float(before.module.head[-1].bias.detach().mean()), abs=1e-6)
    told = predict.logits(begun, begun.rows(SECOND, targets=False))[:, :2]
    np.testing.assert_array_equal(told, predict.logits(before, before.rows(SECOND, targets=False)))


def test_what_was_stored_is_read_back_equal(world: World) -> None:
    past = world.past(world.first)
    train_rows = {row.id: row for row in FIRST if row.split == "train"}
    assert past.labels == OLD and len(past.rows) == 10
    assert all(row == train_rows[row.id] for row in past.rows)
    assert dict(past.facts) == {"seen": 32, "store_seed": 0}
    model = open_tuned_labels(world.first)
    for row, values in zip(past.rows, predict.logits(model, model.rows(past.rows))):
        np.testing.assert_allclose(past.logits[row.id], values, atol=1e-5)
        assert past.logits[row.id].dtype == np.float32


def test_the_store_goes_on_evenly_over_trainings(world: World) -> None:
    """The third store is what one choice among all rows of three trainings gives, though seeds changed between."""
    second = world.train(SECOND, start=world.first, keep=KEEP, seed=5, max_steps=2)
    more = [replace(row, id=f"m{row.id}", input=f"{row.input}{row.input[:3]}") for row in SECOND]
    third = world.train(more, start=second, keep=KEEP, seed=9, max_steps=2)
    ids = [row.id for rows in (FIRST, SECOND, more) for row in rows if row.split == "train"]
    best = {ids[at] for at in np.argsort(lots(ids, 0))[:10]}
    assert {row.id for row in world.past(third).rows} == best
    assert world.past(third).facts["seen"] == len(ids)


def test_every_update_replays_its_share_and_walks_evenly_through_the_pool(world: World) -> None:
    job = world.job(SECOND, "shares", replay=REPLAY, epochs=10)
    fit = _Fit(job)
    fit.read()
    fit.check_data()
    fit.prepare()
    assert fit.num_pool == 10 and {row.id for row in fit.rows[-10:]} == {row.id for row in world.past(world.first).rows}
    order, counts = fit.order(), Counter()
    assert order.updates_per_epoch == 5
    for epoch in range(10):
        own: list[int] = []
        for update in order.epoch(epoch):
            replayed = [at for at in update if at >= 30]
            assert len(replayed) == 2, "a quarter of 8"
            counts.update(replayed)
            own += [at for at in update if at < 30]
        assert sorted(own) == [*range(30)], "every new row once an epoch"
    assert {*counts.values()} == {10} and len(counts) == 10, "100 replayed rows, each of the pool's ten as often"


def test_a_killed_training_with_replay_ends_like_an_undisturbed_one(world: World, tmp_path: Path) -> None:
    spec: dict[str, Any] = {"start": world.first, "keep": KEEP, "replay": REPLAY,
                            "regularizers": (Lwf(), DarkReplay()), "checkpoint_every_s": 1e-9}
    calm = world.train(SECOND, **spec)
    assert calm.summary["steps"] == 10 and calm.summary["replayed_rows"] == 10
    other = Store(tmp_path / "store")
    for step in (3, 7):
        with pytest.raises(Killed):
            world.train(SECOND, store=other, watch=kill_at(step), **spec)
    again = world.train(SECOND, store=other, **spec)
    assert again.id == calm.id and again.path != calm.path
    for name in ("best/model.safetensors", f"{FOLDER}/logits.safetensors"):
        one, two = load_file(calm.path / name), load_file(again.path / name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    for name in ("rows.jsonl", "memory.json"):
        assert (calm.path / FOLDER / name).read_text() == (again.path / FOLDER / name).read_text()
    losses = [[json.loads(line)["loss"] for line in (run.path / "steps.jsonl").read_text().splitlines()]
              for run in (calm, again)]
    assert losses[0] == losses[1]


def test_rows_that_are_learned_now_are_not_replayed_and_corrected_ones_leave_the_store(world: World) -> None:
    stored = world.past(world.first).rows
    same, fixed = stored[0], replace(stored[1], id="corrected", labels=("cat",), input=f"{stored[1].input}!")
    job = world.job([*SECOND, same, fixed], "known", replay=REPLAY, keep=KEEP)
    assert {row.id for row in job.replay} == {row.id for row in stored[2:]}
    assert {row.id for row in job.past.rows} == {row.id for row in stored[2:]}, "the wrong label is not stored again"


def test_rows_that_are_held_out_now_are_not_replayed(world: World) -> None:
    """By their words, their document or their group; and that is said."""
    stored, heard = [*world.past(world.first).rows], Heard()
    copy = replace(stored[0], id="held", split="test", input=str(stored[0].input).upper() + ".")
    job = world.job([*SECOND, copy], "held", replay=REPLAY, progress=heard)
    assert {row.id for row in job.replay} == {row.id for row in stored[1:]}
    assert any("1 of 10 stored rows are held out now" in line for line in heard.lines)
    assert len(job.past.rows) == 10, "they stay in the store"


def test_rows_of_a_label_that_is_gone_are_neither_replayed_nor_stored(world: World) -> None:
    gone = [row for row in SECOND if row.labels != ("bee",)]
    job = world.job(gone, "gone", replay=REPLAY)
    assert {row.labels for row in job.replay} == {("ant",)}
    heard = Heard()
    run = world.train(gone, start=world.first, keep=Reservoir(size=100), max_steps=1, progress=heard)
    assert any("1 of the earlier model's labels, which are given up: bee" in line for line in heard.lines)
    assert {row.labels for row in world.past(run).rows} == {("ant",), ("cat",)}
    assert any(row.id == job.replay[0].id for row in world.past(run).rows)


def test_a_start_that_kept_nothing_says_so(world: World) -> None:
    bare = world.train(FIRST)
    assert not (bare.path / FOLDER).exists()
    for start, why in ((bare, "kept no rows (train.keep)"), (None, "training begins from a base model")):
        heard = Heard()
        run = world.train(SECOND, start=start, replay=REPLAY, max_steps=1, progress=heard, seed=2)
        assert any("nothing is replayed" in line and why in line for line in heard.lines), heard.lines
        assert "replayed_rows" not in run.summary
    heard = Heard()
    world.train(SECOND, regularizers=(Lwf(),), max_steps=1, progress=heard)
    assert any("lwf has nothing to protect yet" in line for line in heard.lines)
    with pytest.raises(SpecError, match=r"'dark' .* kept no rows"):
        world.train(SECOND, start=bare, replay=REPLAY, regularizers=(DarkReplay(),))


def test_a_start_on_another_base_model_is_refused(world: World) -> None:
    """Its weights would silently stand in for those that `adapt` names."""
    tiny_encoder(world.root / "other", dropout=0.1, seed=3)
    other = adapt(Task(type="classify"), Adapt(model="./other"), store=world.store, root=world.root)
    with pytest.raises(ModelError, match="another base model"):
        train(other, data_of(world.store, SECOND, ALL), Train(**SHORT), store=world.store, root=world.root,
              start=world.first)


def test_the_start_is_part_of_the_runs_id(world: World) -> None:
    other = world.train(FIRST, keep=KEEP, seed=1)
    runs = [world.train(SECOND, start=start, max_steps=1) for start in (None, world.first, other)]
    assert len({run.id for run in runs}) == 3
    assert runs[1].inputs["start"] == f"train/{world.first.id}"
