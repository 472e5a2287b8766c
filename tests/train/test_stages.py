"""Law: stages are trainings in a row, each from the weights of the last; the matrix says what each did to all of them;
a kill at any stage changes no bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from test_continue_text import Killed, dying_at
from train_kit import adapted, chat, data_artifact

from luthier.adapt.base import open_base
from luthier.adapt.lora import LoRA
from luthier.errors import DataError, SpecError
from luthier.project import ProjectSpec
from luthier.spec import parse
from luthier.store import Store
from luthier.task import Task
from luthier.train import stages, streams
from luthier.train.base import Train, open_tuned, train
from luthier.train.batches import collate
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.objectives import Plain
from luthier.train.past import FOLDER, load_past
from luthier.train.regularizers.lwf import LearningWithoutForgetting
from luthier.train.render import render
from luthier.train.replay import Replay
from luthier.train.stages import Rows, Stage
from luthier.types import Example, Origin


def text(number: int, split: str = "train") -> Example:
    return Example(id=f"t{number}", input=f"The tree number {number} bears fruit in summer.", target=None, split=split,
                   origin=Origin(maker="document", step="text", documents=(f"t{number}",)))


def rows() -> list[Example]:
    texts = [text(n) for n in range(10)] + [text(n, "validation") for n in range(10, 13)]
    pairs = [chat(n, origin=Origin(maker="human", step="pairs", documents=(f"d{n}",))) for n in range(20, 32)]
    return texts + pairs + [chat(n, split="validation", origin=Origin(maker="human", step="pairs",
                                                                      documents=(f"d{n}",))) for n in range(32, 36)]


STAGES = (Stage(name="domain", rows=Rows(step=("text",)), epochs=2, learning_rate=5e-3),
          Stage(name="answers", rows=Rows(step=("pairs",)), regularizers=(LearningWithoutForgetting(),)))
SPEC = Train(epochs=3, learning_rate=8e-3, batch_size=4, stages=STAGES, keep=Reservoir(size=6),
             replay=Replay(source="past", share=0.2))


def weights(run):
    return load_file(run.path / "best" / "adapter_model.safetensors")


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def loss(model, step: str) -> float:
    """Of the validation rows of one step, by the model's own logits."""
    found = [render(model.tokenizer, row, stop_id=model.stop_ids[0]) for row in rows()
             if row.split == "validation" and row.origin.step == step]
    batch = collate(found, "buckets")
    with torch.no_grad():
        return float(Plain(model.module)(batch, len(batch.targets)))


def test_stages_equal_trainings_in_a_row_and_the_matrix_is_measured(tmp_path):
    """Bit for bit the same as two calls of train, the second beginning from the first; both have the other's rows in
    the matrix."""
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=LoRA(rank=4, dropout=0.1))
    run = train(model, data_artifact(store, rows(), "all"), SPEC, store=store)
    first = train(model, data_artifact(store, [row for row in rows() if row.origin.step == "text"], "texts"),
                  STAGES[0].spec(SPEC), store=store)
    second = train(model, data_artifact(store, [row for row in rows() if row.origin.step == "pairs"], "pairs"),
                   STAGES[1].spec(SPEC), store=store, start=first)
    assert same(weights(run), weights(second))
    assert load_past(run.path / FOLDER, lambda: None).rows == load_past(second.path / FOLDER, lambda: None).rows
    matrix = json.loads((run.path / "matrix.json").read_text())
    assert matrix == run.summary["matrix"] and matrix["tasks"] == ["domain", "answers"] and matrix["n"] == [3, 4]
    losses = [matrix["start"]["loss"], *matrix["matrix"]["loss"]]
    for found, one in zip(losses, (open_base(model), open_tuned(first, model), open_tuned(run, model)), strict=True):
        assert found == pytest.approx([loss(one, "text"), loss(one, "pairs")], rel=1e-4)
    assert matrix["matrix"]["loss"][0][0] < matrix["start"]["loss"][0] - 0.02  # each stage learned its own
    assert matrix["matrix"]["loss"][1][1] < matrix["matrix"]["loss"][0][1] - 0.02
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [*range(1, len(steps) + 1)] and run.summary["steps"] == len(steps)
    assert max(step["learning_rate"] for step in steps if step["stage"] == "domain") == pytest.approx(5e-3, rel=0.2)
    assert {step["taught"] > 0 for step in steps if step["stage"] == "domain"} == {False}
    assert any(step["taught"] > 0 for step in steps if step["stage"] == "answers")
    contract = json.loads((run.path / "contract.json").read_text())
    assert len(contract) == 10 and all("domain: " in row["text"] and "answers: " in row["text"] for row in contract)
    assert not [*(run.path / "stages").glob("*/best")] and (run.path / "preview.html").is_file()


def interrupted(*args, finish=stages._finish):
    finish(*args)
    raise Killed


def test_killed_at_every_stage_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    found = []
    for name in ("straight", "killed"):
        store = Store(tmp_path / name)
        model, data = adapted(tmp_path, store, method=LoRA(rank=4, dropout=0.1)), data_artifact(store, rows())
        spec = SPEC.but(checkpoint_every_s=1e-6, validate_every=2)
        if name == "killed":
            right = streams.counted
            monkeypatch.setattr(streams, "counted", dying_at((3,), right))  # in the first stage
            with pytest.raises(Killed):
                train(model, data, spec, store=store)
            monkeypatch.setattr(streams, "counted", right)
            monkeypatch.setattr(streams, "counted", dying_at((7,), right))  # the first has 6 updates, the second 12
            with pytest.raises(Killed):
                train(model, data, spec, store=store)
            assert [*(tmp_path / name).glob("train/*.part/stages/1-domain/summary.json")]

            monkeypatch.setattr(streams, "counted", right)
            monkeypatch.setattr(stages, "_finish", interrupted)  # when all is done but for the store's last word
            with pytest.raises(Killed):
                train(model, data, spec, store=store)
            monkeypatch.undo()
        found.append(train(model, data, spec, store=store))
    assert same(weights(found[0]), weights(found[1]))
    assert found[0].summary["matrix"] == found[1].summary["matrix"]
    assert (found[0].path / FOLDER / "rows.jsonl").read_text() == (found[1].path / FOLDER / "rows.jsonl").read_text()


@pytest.mark.parametrize(("chosen", "ids"), [
    (Rows(), {"a", "b", "c"}), (Rows(step=("faq", "pairs")), {"a", "b"}), (Rows(maker=("rule",)), {"b", "c"}),
    (Rows(tags=("grounded", "x")), {"c"}), (Rows(groups={"team": ("law",)}), {"b", "c"}),
    (Rows(step=("faq",), groups={"team": ("law",)}), {"b"})])
def test_a_stage_chooses_rows_that_fit_every_field(chosen, ids):
    made = [chat(0, id="a", origin=Origin(maker="human", step="pairs")),
            chat(1, id="b", origin=Origin(maker="rule", step="faq"), groups={"team": "law"}),
            chat(2, id="c", origin=Origin(maker="rule", step="section"), groups={"team": "law"}, tags=("grounded",))]
    assert {row.id for row in made if chosen.fits(row)} == ids


def test_a_stage_without_rows_and_rows_without_a_stage_are_told(tmp_path):
    store = Store(tmp_path / "store")
    model, data = adapted(tmp_path, store), data_artifact(store, rows())
    with pytest.raises(DataError, match=r"'formats' finds no train row.*pairs, text"):
        train(model, data, Train(stages=(Stage(name="formats", rows=Rows(step=("style",))),)), store=store)
    run = train(model, data, Train(max_steps=1, stages=STAGES[:1]), store=store)
    assert run.summary["rows_in_no_stage"] == 12 and run.summary["train_examples"] == 10


def test_stages_of_labelled_tasks_and_two_of_one_name_are_refused():
    with pytest.raises(SpecError, match=r"train\.stages.*does not apply"):
        Train(stages=STAGES).refuse_misfits(Task(type="classify"))
    with pytest.raises(SpecError, match="named 'domain'"):
        Train(stages=(STAGES[0], STAGES[0])).refuse_misfits(Task())
    with pytest.raises(SpecError, match="twice"):
        parse(ProjectSpec, {"name": "x", "train": {"stages": [{"name": "a", "regularizers": ["lwf", "lwf"]}]}})
    spec = parse(ProjectSpec, {"name": "x", "train": {"stages": [{"name": "a", "rows": {"step": ["text"]}}]}})
    assert spec.train.stages == (Stage(name="a", rows=Rows(step=("text",))),)
