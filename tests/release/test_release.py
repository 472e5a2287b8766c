"""Laws of `release`: only what passed goes live, forcing is recorded, the same inputs change nothing, a kill loses
nothing."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import ContractError, GateRefused, ModelError, SpecError
from luthier.index.base import Index, index, open_index
from luthier.index.rag import Rag
from luthier.release import assistant
from luthier.release import base as release_base
from luthier.release.base import (
    Gate,
    Release,
    list_releases,
    live_release,
    read_history,
    read_release,
    release,
    rollback,
)
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Example, Message, Origin, Passage, write_jsonl

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="the extra `train` is not installed")
pytest.importorskip("bm25s", reason="the extra `index` is not installed")

TASK = Task(system="Answer in one sentence.", metric="token_f1")


def gate_report(choice="tuned", gain=0.2, rise=0.01, questions=40):
    measured = lambda value: {"value": value, "low": value - 0.05, "high": value + 0.05, "n": questions}  # noqa: E731
    systems = ("base", "retrieval", "tuned", "tuned_retrieval")
    return {
        "verdict": {"choice": choice, "sentence": f"The verdict is {choice}.", "reasons": []}, "metric": "token_f1",
        "test": {"num_questions": questions, "num_unanswerable": 2, "disjoint": "document"},
        "systems": {name: {"metrics": {"token_f1": measured(0.2 + gain * (name != "base")),
                                       "refused_wrongly": measured(0.05)}} for name in systems},
        "differences": [{"system": name, "against": "base", "metric": "token_f1", **measured(gain)}
                        for name in systems[1:]],
        "retention": {"token_loss": {"base": 2.0, "tuned": 2.0 * (1 + rise), "relative_rise": rise, "low": rise - 0.01,
                                     "high": rise + 0.01, "n": 80}},
    }


LIGHT = Release(system="retrieval", tuned_weights="passed")
"""Two releases that export nothing: where the law is about folders and not about weights."""
LIGHTER = LIGHT.but(approved_by="Liv Marchetti")


@dataclass(frozen=True)
class World:
    """Everything that comes before a release, made once; `go` releases."""

    root: Path
    store: Store
    data: Artifact
    index: Artifact
    model: Artifact
    run: Artifact
    base: Path

    def report(self, **changes: Any) -> Artifact:
        found = gate_report(**changes)

        def make(folder):
            (folder / "report.json").write_text(json.dumps(found))
            (folder / "report.html").write_text("<p>report</p>")
            return {"verdict": found["verdict"]}

        return self.store.build("evaluate", version=1, spec=changes, inputs={"run": self.run}, make=make)

    def go(self, releases: Path, spec: Release | None = None, *, force: bool = False, run: Artifact | None = None,
           **changes: Any) -> Path:
        settings = (spec or Release()).but(name="desk", probes=2, probe_tokens=6)
        return release(report=self.report(**changes), run=run or self.run, model=self.model, index=self.index,
                       data=self.data, task=TASK, rag=Rag(top_k=2), spec=settings, store=self.store,
                       releases=releases, force=force, root=self.root)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.lora import LoRA

    root = tmp_path_factory.mktemp("project")
    base, store = tiny_chat_model(root / "tiny"), Store(root / "store")
    passages = [Passage(id=f"p{number}", document="d", path="a.md", title="Codes", heading=(), spans=(0, 1),
                        text=f"Code {number} means colour {number}.") for number in range(3)]
    rows = [Example(id=f"e{number}", input=(Message(role="user", content=f"What is code {number}?"),), target="Blue.",
                    origin=Origin(maker="document", step="faq", documents=("d",)), split=split)
            for number, split in enumerate(["train"] * 4 + ["validation"] + ["test"] * 3)]

    def documents(folder):
        write_jsonl(folder / "documents.jsonl", [{"path": "a.md"}])
        return {"documents": 1}

    def prepared(folder):
        write_jsonl(folder / "passages.jsonl", passages)
        write_jsonl(folder / "examples.jsonl", rows)
        return {"language": "en"}

    read = store.build("ingest", version=1, spec={}, inputs={}, make=documents)
    data = store.build("prepare", version=1, spec={}, inputs={"documents": read}, make=prepared)
    model = adapt(TASK, Adapt(model=str(base), method=LoRA(rank=4)), store=store)
    searchable = index(data, Index(mode="keywords"), store=store, root=root)
    return World(root=root, store=store, data=data, index=searchable, model=model,
                 run=train_by_hand(store, model, 0.2), base=base)


def train_by_hand(store, model_artifact, size):
    """A run whose adapter is random (`size` > 0) or untrained (0)."""
    def fill(folder):
        from luthier.adapt.base import open_model

        model = open_model(model_artifact, dtype="float32")
        generator = torch.Generator().manual_seed(1)
        tensors = {name: parameter.data for name, parameter in model.module.named_parameters()
                   if parameter.requires_grad}
        for name in tensors:
            if "lora_B" in name:
                tensors[name] = size * torch.randn(tensors[name].shape, generator=generator)
        model.method.save(model.module, tensors, folder / "best")
        return {"steps": 4, "best_step": 4 if size else 0, "validation_before": 2.5, "validation_best": 2.0}

    return store.build("train", version=1, spec={"size": size}, inputs={"model": model_artifact}, make=fill)


def test_a_passed_model_becomes_version_1_and_live(world, tmp_path):
    folder = world.go(tmp_path)
    record = read_release(folder)
    assert (folder, live_release(tmp_path, "desk")) == (tmp_path / "desk" / "1", folder)
    assert (record.label, record.stage, record.choice, record.forced) == ("desk/1", "live", "tuned", None)
    assert record.systems == ("base", "retrieval", "tuned", "tuned_retrieval")
    assert record.task == TASK and record.rag == Rag(top_k=2) and record.dtype == "float32"
    assert all(check["outcome"] != "failed" for check in record.gate)
    assert set(record.lineage) == {"ingest", "prepare", "index", "adapt", "train", "evaluate"}
    assert record.lineage["prepare"] == f"prepare/{world.data.id}"
    assert record.weights("tuned") == folder / "model" and record.weights("base") == world.base
    record.verify()
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["identical_answers"] + parity["near_ties"] == parity["num_prompts"] == 2
    assert {"release.json", "report.json", "report.html", "parity.json", "MODEL_CARD.md", "model", "index"} == {
        path.name for path in folder.iterdir()}
    hits = open_index(folder / "index", root=world.root).search(["code 2"], 1)
    assert hits[0][0].passage.id == "p2"


def test_the_model_card_says_what_when_from_what_and_how_good(world, tmp_path):
    card = (world.go(tmp_path) / "MODEL_CARD.md").read_text()
    for part in ("# desk, version 1", "The verdict is tuned.", "1 documents (md)", "4 train examples",
                 "validation loss 2.500 → 2.000", "0.400 (0.350 to 0.450)", "| beats | passed |", "40 questions",
                 "## Limits", "## Licence", "look it up before you pass the weights on"):
        assert part in card, part


@pytest.mark.parametrize(("changes", "gate", "check", "number"), [
    ({"gain": 0.04}, Gate(), "beats", "-0.010 to +0.090"),
    ({"rise": 0.12}, Gate(), "max_retention_rise", "+12.0%"),
    ({"questions": 10}, Gate(), "min_questions", "10 test questions"),
    ({}, Gate(approval="required"), "approval", "approved_by"),
])
def test_a_failed_check_refuses_with_its_numbers_and_promotes_nothing(world, tmp_path, changes, gate, check, number):
    with pytest.raises(GateRefused) as refused:
        world.go(tmp_path, Release(gate=gate), **changes)
    assert check in str(refused.value) and number in str(refused.value) and "--force" in str(refused.value)
    assert not list_releases(tmp_path) and not list((tmp_path / "desk").glob("*.part"))
    history = read_history(tmp_path / "desk")
    assert [row["event"] for row in history] == ["refused"]
    assert [row["name"] for row in history[0]["failed"]] == [check]
    with pytest.raises(GateRefused):
        world.go(tmp_path, Release(gate=gate), **changes)
    assert len(read_history(tmp_path / "desk")) == 1, "asking again is not another event"


def test_every_failed_check_is_told_at_once(world, tmp_path):
    with pytest.raises(GateRefused, match=r"3 of \d checks failed") as refused:
        world.go(tmp_path, gain=0.0, rise=0.5, questions=5)
    assert all(name in str(refused.value) for name in ("beats", "max_retention_rise", "min_questions"))


def test_force_releases_and_records_who_why_and_what_failed(world, tmp_path):
    folder = world.go(tmp_path, Release(force_reason="a demonstration"), force=True, rise=0.5)
    record = read_release(folder)
    assert record.stage == "live"
    assert record.forced and record.forced["reason"] == "a demonstration" and record.forced["by"]
    assert [check["name"] for check in record.forced["failed"]] == ["max_retention_rise"]
    assert read_history(folder.parent)[0]["forced"] is True
    assert "The gate was overruled" in (folder / "MODEL_CARD.md").read_text()


def test_force_is_not_recorded_where_nothing_failed(world, tmp_path):
    assert read_release(world.go(tmp_path, LIGHT, force=True)).forced is None


def test_a_worse_model_does_not_replace_the_live_one(world, tmp_path):
    world.go(tmp_path, LIGHT)
    with pytest.raises(GateRefused):
        world.go(tmp_path, rise=0.5)
    assert live_release(tmp_path, "desk").name == "1"


def test_the_same_inputs_again_change_nothing(world, tmp_path):
    folder = world.go(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert world.go(tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert world.go(tmp_path, Release(system="tuned_retrieval")).name == "2", "another choice is another release"


def test_the_second_call_loads_no_heavy_library(world, tmp_path):
    """Measured in a fresh process, where torch is not there yet."""
    folder = world.go(tmp_path)
    code = f"""
import json, sys
from pathlib import Path
from luthier.index.rag import Rag
from luthier.release.base import Release, release
from luthier.store import Store
from luthier.task import Task
store = Store({str(world.store.root)!r})
found = {{name: store.find(*place) for name, place in {dict(
    report=("evaluate", read_release(folder).lineage["evaluate"].split("/")[1]), run=("train", world.run.id),
    model=("adapt", world.model.id), index=("index", world.index.id), data=("prepare", world.data.id))!r}.items()}}
made = release(**found, task=Task(**{TASK.dump()!r}), rag=Rag(top_k=2), store=store, releases=Path({str(tmp_path)!r}),
               spec=Release(name="desk", probes=2, probe_tokens=6), root=Path({str(world.root)!r}))
print(json.dumps([str(made), [name for name in ("torch", "transformers", "peft", "numpy") if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [str(folder), []]


def test_a_rollback_stays_when_the_same_inputs_are_released_again(world, tmp_path):
    first = world.go(tmp_path, LIGHT)
    second = world.go(tmp_path, LIGHTER)
    assert rollback(tmp_path, "desk") == first
    assert world.go(tmp_path, LIGHTER) == second
    assert live_release(tmp_path, "desk") == first


@pytest.mark.parametrize("step", ["_export", "_copy_index", "_sync_tree"])
def test_a_kill_before_the_rename_leaves_the_old_release(world, tmp_path, monkeypatch, step):
    world.go(tmp_path, LIGHT)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(release_base if step == "_sync_tree" else assistant, step, die)
        patch.setattr(release_base.shutil, "rmtree", lambda *_, **__: None)  # kill -9 cleans nothing up
        world.go(tmp_path, LIGHTER)
    assert (tmp_path / "desk" / "2.part").is_dir()
    assert [record.label for record in list_releases(tmp_path)] == ["desk/1"]
    assert live_release(tmp_path, "desk").name == "1"
    assert world.go(tmp_path, LIGHTER).name == "2"
    assert not list((tmp_path / "desk").glob("*.part"))


def test_a_kill_between_rename_and_promotion_is_finished_by_the_next_call(world, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(release_base, "promote", die)
        world.go(tmp_path, LIGHT)
    assert [record.stage for record in list_releases(tmp_path)] == ["candidate"]
    folder = world.go(tmp_path, LIGHT)
    assert folder.name == "1" and read_release(folder).stage == "live"


def test_a_retrieval_release_is_judged_as_such_and_offers_the_tuned_weights_as_not_passed(world, tmp_path):
    folder = world.go(tmp_path, choice="retrieval", rise=0.5)  # what tuning damaged does not concern retrieval
    record = read_release(folder)
    assert record.choice == "retrieval" and record.forced is None
    assert record.tuned == {"present": True, "passed": False, "why": "the test chose 'retrieval'"}
    assert (folder / "model" / "config.json").is_file()
    assert "not what the gate let through" in (folder / "MODEL_CARD.md").read_text()


def test_tuned_weights_can_be_left_out(world, tmp_path):
    record = read_release(world.go(tmp_path, Release(tuned_weights="passed"), choice="retrieval"))
    assert record.systems == ("base", "retrieval") and not (record.folder / "model").exists()
    with pytest.raises(ModelError, match="it offers: base, retrieval"):
        record.weights("tuned")


def test_a_training_that_changed_nothing_is_no_tuned_release_but_may_release_retrieval(world, tmp_path):
    idle = train_by_hand(world.store, world.model, 0.0)
    with pytest.raises(ContractError, match="equal the base"):
        world.go(tmp_path, run=idle)
    with pytest.raises(ContractError, match="equal the base"):
        world.go(tmp_path, run=idle, force=True)
    record = read_release(world.go(tmp_path, run=idle, choice="retrieval"))
    assert record.systems == ("base", "retrieval") and "equal the base" in record.tuned["why"]


def test_the_verdict_to_keep_the_base_releases_nothing(world, tmp_path):
    with pytest.raises(GateRefused, match="keep the base model"):
        world.go(tmp_path, choice="base")
    assert read_release(world.go(tmp_path, Release(system="retrieval"), choice="base")).choice == "retrieval"


def test_bfloat16_is_stored_and_bounded_by_the_gate(world, tmp_path):
    record = read_release(world.go(tmp_path, Release(dtype="bfloat16", gate=Gate(min_agreement=0.0))))
    assert record.dtype == "bfloat16"
    assert next(check for check in record.gate if check["name"] == "min_agreement")["outcome"] == "passed"
    parity = assistant._export

    def far(*args, **kwargs):
        tuned, found = parity(*args, **kwargs)
        return tuned, {**found, "agreement": 0.5}

    with pytest.MonkeyPatch.context() as patch, pytest.raises(GateRefused, match="min_agreement"):
        patch.setattr(assistant, "_export", far)
        world.go(tmp_path, Release(dtype="bfloat16"))
    assert live_release(tmp_path, "desk") == record.folder


def test_a_copied_base_makes_the_folder_stand_alone(world, tmp_path):
    record = read_release(world.go(tmp_path, Release(base_weights="copied", tuned_weights="passed"),
                                   choice="retrieval"))
    moved = tmp_path / "elsewhere"
    record.folder.rename(moved)
    there = read_release(moved)
    there.verify()
    assert there.weights("base") == moved / "base"
    assert (moved / "base" / "model.safetensors").read_bytes() == (world.base / "model.safetensors").read_bytes()


def test_a_base_that_changed_since_the_test_is_refused(world, tmp_path):
    record = read_release(world.go(tmp_path, Release(tuned_weights="passed"), choice="retrieval"))
    changed = replace(record, base={**record.base, "fingerprint": "0" * 16})
    with pytest.raises(ModelError, match="not the one that release desk/1 was tested with"):
        changed.weights("base")


def test_a_release_needs_a_name(world, tmp_path):
    with pytest.raises(SpecError, match=r"release\.name"):
        release(report=world.report(), run=world.run, model=world.model, index=world.index, data=world.data, task=TASK,
                rag=Rag(), spec=Release(), store=world.store, releases=tmp_path)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_a_name_cannot_leave_the_releases_folder(name):
    with pytest.raises(ValueError):
        Release(name=name)
