"""Columns learned one after another: nothing older moves, reads help, the router sends rows home, a kill changes
nothing, and a model that was trained before goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continual_kit import LABELS, TASKS, in_groups, tasks_job
from fit_kit import Bench, Killed, kill_at, rows, same, weights
from PIL import Image

from luthier.adapt import predict
from luthier.adapt.base import Adapt, adapt
from luthier.adapt.columns import ProgressiveNetwork
from luthier.adapt.head import Head
from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.lora import LoRA
from luthier.adapt.network import LabelModel
from luthier.errors import DataError, ModelError, SpecError
from luthier.progress import Silent
from luthier.store import Cache, Store
from luthier.task import Task
from luthier.testing import check_strategy
from luthier.train.base import Train
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.labelled.base import Job
from luthier.train.labelled.fit import fit_once
from luthier.train.past import Past
from luthier.train.strategies.progressive import Progressive
from luthier.train.streams import read_tensors
from luthier.types import Example, Origin

QUICK: dict[str, Any] = {"verify_resume": False, "epochs": 4, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("progressive"), labels=LABELS)


def texts(bench: Bench, name: str, strategy: Progressive, **spec: Any) -> Job:
    return tasks_job(bench, name, strategy, **{**QUICK, **spec})


def run(job: Job, fit: Any = fit_once) -> Any:
    assert job.spec.strategy is not None
    return job.spec.strategy.run(fit, job)


def network_of(model: LabelModel) -> ProgressiveNetwork:
    assert isinstance(model.module, ProgressiveNetwork)
    return model.module


def matrix(fitted: Any, mode: str) -> np.ndarray:
    return np.array(fitted.artifacts["matrix.json"]["matrix"][mode], dtype=float)


class Pictures:
    """Images of 16 x 16 pixels, drawn by a rule, and jobs on a small network."""

    def __init__(self, folder: Path, labels: Sequence[str]):
        self.folder, self.labels = folder, tuple(labels)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        self.adapted = adapt(Task(type="image"), Adapt(model="mlp:24x16", image_size=16, head=Head(
            warm_start=False, dropout=0.0)), store=Store(folder / "store"), root=folder)

    def open(self, seed: int) -> LabelModel:
        model = open_label_model(self.adapted, self.labels, seed=seed)
        model.processor.root = self.folder  # type: ignore[attr-defined]
        return model

    def example(self, id: str, pixels: np.ndarray, label: str, task: str, split: str = "train") -> Example:
        file = self.folder / "images" / f"{id}.png"
        if not file.exists():
            Image.fromarray(pixels.astype(np.uint8)).save(file)
        return Example(id=id, input="", target=None, labels=(label,), image=f"images/{id}.png", groups={"task": task},
                       split=split, origin=Origin(maker="human", step="rows", where=id))  # type: ignore[arg-type]

    def job(self, name: str, train: list[Example], validation: list[Example], strategy: Any, **spec: Any) -> Job:
        settings = {"verify_resume": False, "batch_size": 16, "learning_rate": 3e-3, "epochs": 8, **spec}
        return Job(open=self.open, train=train, validation=validation, spec=Train(strategy=strategy, **settings),
                   folder=self.folder / name, cache=Cache(self.folder / "cache"), root=self.folder, progress=Silent())


def either(pictures: Pictures, task: str, labels: Sequence[str], num: int, *, seed: int, split: str = "train"
           ) -> list[Example]:
    """Whether exactly one of two corners is bright: no single layer of linear units can tell."""
    rng = np.random.default_rng(seed)
    found = []
    for at in range(num):
        one, two = rng.integers(0, 2, 2)
        pixels = rng.integers(0, 100, (16, 16))
        pixels[:8, :8] += 150 * int(one)
        pixels[8:, 8:] += 150 * int(two)
        found.append(pictures.example(f"{task}-{seed}-{at}", pixels, labels[int(one != two)], task, split))
    return found


def test_the_spec_keeps_the_laws() -> None:
    check_strategy(Progressive(labels={"a": ("x", "y"), "b": ("z", "w")}, order=("b", "a"), size="full", reads=0,
                               router="task", abstain=0.0))
    for wrong in ({"by": "domain", "labels": {"a": ("x",)}}, {"by": "domain", "task": "new"}):
        with pytest.raises(ValueError, match="not both"):
            Progressive(**wrong)


@dataclasses.dataclass(frozen=True)
class Learned:
    """One undisturbed run, and what each of its stages looked like."""

    job: Job
    fitted: Any
    stages: list[tuple[LabelModel, dict[str, torch.Tensor], set[str]]]
    """Model, weights, and the names of the parameters that were free."""


@pytest.fixture(scope="module")
def learned(bench: Bench) -> Learned:
    stages: list[tuple[LabelModel, dict[str, torch.Tensor], set[str]]] = []

    def fit(job: Job) -> Any:
        opened = job.open(job.seed).module
        free = {name for name, value in opened.named_parameters() if value.requires_grad}
        before = {name: value.clone() for name, value in opened.state_dict().items()}
        found = fit_once(job)
        after = found.model.module.state_dict()
        assert {name for name in before if not torch.equal(before[name], after[name])} <= free
        stages.append((found.model, {name: value.clone() for name, value in after.items()}, free))
        return found

    job = texts(bench, "learned", Progressive(reads=8))
    return Learned(job, run(job, fit), stages)


def test_nothing_is_forgotten_and_only_new_parameters_move(learned: Learned) -> None:
    network = network_of(learned.fitted.model)
    assert network.names == tuple(TASKS) and network.base is not None
    final = network.state_dict()
    for at, (_, state, free) in enumerate(learned.stages):
        assert all(torch.equal(final[name], value) for name, value in state.items()), "what stood stands to the end"
        mine = (f"columns.{at}.", f".down.{at}.", f".up.{at}.")
        assert all(any(part in name for part in mine) for name in free)
        assert all(any(part in name for name in free) for part in mine)
    named = matrix(learned.fitted, "task_incremental")
    for at in range(3):
        column = named[at:, at]
        assert (column == column[0]).all(), "backward transfer is exactly 0"
        assert np.isnan(named[:at, at]).all()
    assert named.diagonal().min() >= 0.8
    assert learned.fitted.model.labels == LABELS and dict(learned.fitted.model.parts) == TASKS


def test_the_router_is_measured_apart(learned: Learned) -> None:
    report = learned.fitted.artifacts["router.json"]
    assert report["n"] == 36 and np.array(report["sent"]).sum() == 36
    assert report["accuracy"] == pytest.approx(np.trace(report["sent"]) / 36, abs=1e-6)
    assert learned.fitted.summary["progressive"]["router"]["accuracy"] == report["accuracy"] >= 0.7
    routed = matrix(learned.fitted, "class_incremental")[-1].mean()
    assert routed <= matrix(learned.fitted, "task_incremental")[-1].mean()


def test_the_stages_answers_are_those_of_the_finished_model(learned: Learned) -> None:
    """The last stage of `stages.safetensors` decides as the model itself, with and without a named task."""
    stored, _ = read_tensors(learned.job.folder / "stages.safetensors")
    model, test = learned.fitted.model, learned.job.test
    asked = model.rows(test, targets=False)
    chosen, _ = network_of(model).route(model.processor.batch(asked))
    said = predict.logits(model, asked)
    last = stored["test"][-1].numpy()
    for at, column in enumerate(chosen.tolist()):
        mine = np.isin(LABELS, [*TASKS.values()][column])
        assert last[at][mine].argmax() == said[at][mine].argmax()
    named = [row.but(part=example.groups["task"]) for row, example in zip(asked, test)]
    found = predict.logits(model, named)
    kept = ~np.isnan(stored["test_named"][-1].numpy())
    np.testing.assert_allclose(found[kept], stored["test_named"][-1].numpy()[kept], rtol=1e-3, atol=1e-3)
    assert torch.isnan(stored["test"][0][:, 2:]).all() and not torch.isnan(stored["test"][-1]).any()


def test_saved_loaded_and_asked_again_it_is_the_same(learned: Learned, tmp_path: Path) -> None:
    model = learned.fitted.model
    save_label_model(model, tmp_path / "model")
    again = load_label_model(tmp_path / "model")
    asked = model.rows(in_groups(rows(20, labels=LABELS, first=2000)), targets=False)
    np.testing.assert_array_equal(predict.logits(again, asked), predict.logits(model, asked))
    one = [row.but(part="two") for row in asked]
    assert torch.equal(torch.from_numpy(predict.logits(again, one)), torch.from_numpy(predict.logits(model, one)))


def test_a_killed_run_ends_with_the_same_bits(bench: Bench, learned: Learned) -> None:
    job = texts(bench, "killed", Progressive(reads=8), checkpoint_every_s=1e-6)
    fits: list[str] = []

    def dying(one: Job) -> Any:
        fits.append(one.note)
        return fit_once(one.but(watch=kill_at(3)) if "two" in one.note else one)

    with pytest.raises(Killed):
        run(job, dying)
    assert [note.split(", ")[1] for note in fits] == ["one", "two"]
    again = run(job)
    assert same(weights(learned.fitted), weights(again))
    np.testing.assert_array_equal(learned.fitted.logits, again.logits)
    for name in ("matrix.json", "router.json"):
        assert learned.fitted.artifacts[name] == again.artifacts[name]


def test_reading_an_older_column_teaches_what_few_rows_cannot(tmp_path: Path) -> None:
    """The second task asks the first one's question under other names, with 16 rows; 160 taught it."""
    one, two = (Pictures(tmp_path, labels) for labels in (("even", "odd"), ("no", "yes")))
    first = run(one.job("first", either(one, "first", one.labels, 160, seed=1),
                        either(one, "first", one.labels, 60, seed=3, split="validation"),
                        Progressive(task="first", router="none"), epochs=20))
    assert first.value >= 0.95
    rows_ = (either(two, "second", two.labels, 16, seed=2),
             either(two, "second", two.labels, 120, seed=4, split="validation"))
    values = {}
    for reads in (0, 64):
        job = two.job(f"reads-{reads}", *rows_, Progressive(task="second", reads=reads, router="none"), epochs=30,
                      batch_size=8, patience=0)
        found = run(job.but(past=Past(open=lambda: first.model), fresh=two.open))
        values[reads] = matrix(found, "task_incremental")[0, 0]
    assert values[64] >= values[0] + 0.15 and values[64] >= 0.95


def striped(pictures: Pictures, task: str, labels: Sequence[str], num: int, *, seed: int, split: str = "train"
            ) -> list[Example]:
    """Tasks differ in where they are bright, classes in how bright the middle is."""
    rng = np.random.default_rng([seed, len(task)])
    place = {"left": (slice(None), slice(0, 5)), "right": (slice(None), slice(11, 16)),
             "top": (slice(0, 5), slice(None))}[task]
    found = []
    for at in range(num):
        pixels, which = rng.integers(0, 40, (16, 16)), int(rng.integers(2))
        pixels[place] += 180
        pixels[6:10, 6:10] += 120 * which
        found.append(pictures.example(f"{task}-{seed}-{at}", pixels, labels[which], task, split))
    return found


@pytest.mark.parametrize("router", ["class", "task"])
def test_the_router_is_right_on_rows_that_differ_and_abstains_on_foreign_ones(tmp_path: Path, router: Any) -> None:
    names = {"left": ("la", "lb"), "right": ("ra", "rb")}
    pictures = Pictures(tmp_path, [label for labels in names.values() for label in labels])
    train = [one for task, labels in names.items() for one in striped(pictures, task, labels, 60, seed=1)]
    held = [one for task, labels in names.items()
            for one in striped(pictures, task, labels, 30, seed=2, split="validation")]
    fitted = run(pictures.job("run", train, held, Progressive(router=router, abstain=0.05)))
    report = fitted.artifacts["router.json"]
    assert report["accuracy"] == 1.0 and report["abstained"] <= 0.1
    assert fitted.value is not None and fitted.value >= 0.9, "no task was named"
    foreign = striped(pictures, "top", ("la", "lb"), 30, seed=3)
    model = fitted.model
    inputs = model.processor.batch(model.rows(foreign, targets=False))
    _, inside = network_of(model).route(inputs)
    assert float(inside.float().mean()) <= 0.1
    chances = predict.probabilities(predict.logits(model, model.rows(foreign, targets=False)))
    assert np.median(chances.max(1)) < 0.26


def test_without_validation_rows_limits_come_from_train_rows(tmp_path: Path) -> None:
    names = {"left": ("la", "lb"), "right": ("ra", "rb")}
    pictures = Pictures(tmp_path, [label for labels in names.values() for label in labels])
    train = [one for task, labels in names.items() for one in striped(pictures, task, labels, 40, seed=1)]
    fitted = run(pictures.job("run", train, [], Progressive(abstain=0.1), epochs=2))
    assert fitted.value is None and fitted.artifacts["router.json"]["accuracy"] is None
    _, inside = network_of(fitted.model).route(fitted.model.processor.batch(fitted.model.rows(train)))
    assert 0.85 <= float(inside.float().mean()) <= 0.95


def test_a_trained_progressive_model_gets_another_column_and_keeps_its_answers(bench: Bench, learned: Learned
                                                                                 ) -> None:
    first = learned.fitted
    asked = first.model.rows(in_groups(rows(12, labels=LABELS, first=3000)), targets=False)
    before = {name: predict.logits(first.model, [row.but(part=name) for row in asked]) for name in TASKS}
    fresh = opener(bench, "gnu", "hen")  # its data has new labels alone
    past = Past(open=lambda: first.model, labels=LABELS)
    new = [dataclasses.replace(one, id=f"n{one.id}") for one in rows(30, labels=("gnu", "hen"), first=4000)]
    held = rows(16, labels=("gnu", "hen"), first=5000, split="validation")
    job = texts(bench, "went-on", Progressive(reads=4, task="four")).but(
        train=new, validation=held, test=(), open=fresh, fresh=fresh, past=past)
    fitted = run(job)
    assert network_of(fitted.model).names == (*TASKS, "four")
    assert fitted.model.labels == ("gnu", "hen", *LABELS)
    for name, wanted in before.items():
        found = predict.logits(fitted.model, [row.but(part=name) for row in asked])
        np.testing.assert_array_equal(found[:, 2:], wanted)
    assert len(fitted.artifacts["router.json"]["columns"]) == 4
    with pytest.raises(DataError, match="has a column already"):
        run(job.but(past=Past(open=lambda: fitted.model), folder=bench.folder / "again"))


def opener(bench: Bench, *labels: str) -> Any:
    return lambda seed: open_label_model(bench.adapted, labels, seed=seed)


def test_an_ordinary_model_becomes_the_first_column(bench: Bench) -> None:
    own = rows(40, labels=("ant", "bee"))
    plain = fit_once(bench.job("ordinary", own, (), **QUICK).but(open=opener(bench, "ant", "bee")))
    wanted = predict.logits(plain.model, plain.model.rows(own))
    fresh = opener(bench, "gnu", "hen")
    base = texts(bench, "ordinary-goes-on", Progressive(task="more")).but(
        train=rows(30, labels=("gnu", "hen"), first=4000), validation=rows(10, labels=("gnu", "hen"), first=5000,
                                                                           split="validation"),
        test=(), open=fresh, fresh=fresh)
    with pytest.raises(ModelError, match=r"train\.keep"):
        run(base.but(past=Past(open=lambda: load_copy(plain.model, bench.folder / "kept"))))
    fitted = run(base.but(past=Past(open=lambda: load_copy(plain.model, bench.folder / "kept"), rows=own)))
    assert network_of(fitted.model).names == ("before", "more")
    asked = [row.but(part="before") for row in fitted.model.rows(own, targets=False)]
    np.testing.assert_array_equal(predict.logits(fitted.model, asked)[:, 2:], wanted)


def load_copy(model: LabelModel, folder: Path) -> LabelModel:
    save_label_model(model, folder)
    return load_label_model(folder)


def test_settings_that_columns_make_no_use_of_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"train\.keep"):
        run(texts(bench, "refused", Progressive(), keep=Reservoir()))
    lora = Bench(tmp_path, labels=LABELS)
    lora.adapted = adapt(lora.task, Adapt(model="./model", method=LoRA()), store=Store(tmp_path / "store"),
                         root=tmp_path)
    with pytest.raises(SpecError, match="full"):
        run(texts(lora, "refused", Progressive(size="full")))
    pictures = Pictures(tmp_path / "pictures", ("a", "b"))
    with pytest.raises(SpecError, match="transformers text models"):
        run(pictures.job("refused", striped(pictures, "left", ("a", "b"), 4, seed=0), [], Progressive(size="adapter")))
    with pytest.raises(DataError, match="alone"):
        run(texts(bench, "single", Progressive(labels={"x": LABELS[:1], "y": LABELS[1:]})))
