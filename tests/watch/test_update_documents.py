"""Laws of updating an assistant: only changed documents are read and made into rows again, the model goes on from the
live one, general skills stand in the gate, and what is forgotten is in no index."""

import json
import shutil

import pytest
import yaml

pytest.importorskip("torch")
from luthier.ingest.base import read_set_aside
from luthier.prepare import build
from luthier.prepare.base import read_examples, read_passages
from luthier.project import Project
from luthier.release.base import live_release
from luthier.testing import tiny_chat_model
from luthier.watch.champion import find, open_champion
from luthier.watch.compare import read_compare
from luthier.watch.forget import forget
from luthier.watch.update import update

pytestmark = pytest.mark.slow
SETTINGS = {
    "name": "p", "prepare": {"split": {"by": "passage"}}, "index": {"mode": "keywords"},
    "adapt": {"model": "tiny", "dtype": "float32", "method": {"kind": "lora", "rank": 4}},
    "rag": {"top_k": 2, "max_context_tokens": 60},
    "train": {"epochs": 1, "max_length": 1024, "max_truncated_share": 1.0, "verify_resume": False},
    "evaluate": {"max_questions": 6, "max_new_tokens": 2, "min_questions": 2, "bootstrap_samples": 200,
                 "latency_questions": 0, "metrics": [{"kind": "token_f1"}, {"kind": "answer_loss"}],
                 "retention": {"max_items": 10, "choices": "none"}},
    "release": {"probes": 2, "probe_tokens": 2, "system": "tuned_retrieval",
                "gate": {"beats": None, "min_questions": 1, "max_retention_rise": None, "max_wrong_refusals": None}},
    "watch": {"least_past": 10, "gate": {"unsure": "promote", "max_loss": 1.0, "max_new_loss": 1.0}},
}
ROOMS = ("Amber", "Birch", "Cedar", "Dahlia", "Elm", "Fern")


def room(folder, name, *, price):
    number = len(name)
    (folder / f"room-{name.lower()}.md").write_text(
        f"# Meeting room {name}\n\n## How do I book {name}?\n\nWrite to desk{number}@example.org at least {number + 1} "
        f"hours before the meeting and name the room {name} in the subject line.\n\n## What does {name} cost?\n\n"
        f"{name} costs {price} euros an hour for guests and nothing for staff. Coffee for {number + 3} is included.\n\n"
        f"## Who cleans {name}?\n\nThe team of floor {number} cleans {name} on every working day after the last "
        f"meeting and puts {number * 4} chairs back along the wall.\n")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents") / "p"
    (root / "documents").mkdir(parents=True)
    for at, name in enumerate(ROOMS):
        room(root / "documents", name, price=11 * (at + 1))
    tiny_chat_model(root / "tiny")
    (root / "luthier.yaml").write_text(yaml.safe_dump(SETTINGS))
    list(Project.open(root).run())
    return root


@pytest.fixture
def project(first, tmp_path):
    shutil.copytree(first, tmp_path / "p")
    return tmp_path / "p"


def champion(root):
    return open_champion(Project.open(root))


def indexed(root):
    folder = live_release(Project.open(root).releases, "p") / "index"
    return " ".join(file.read_text(errors="ignore") for file in folder.rglob("*.jsonl"))


def test_a_growing_folder(project, monkeypatch):
    before = champion(project)
    tests = {example.question for example in read_examples(before.data, "test")}
    room(project / "documents", "Garnet", price=90)
    room(project / "documents", "Heron", price=91)
    room(project / "documents", "Birch", price=555)  # one fact changed
    (project / "documents" / "room-amber.md").rename(project / "documents" / "amber.md")
    made, make = [], build._make

    def noted(maker, context, document, passages):
        made.append(document.path)
        return make(maker, context, document, passages)

    monkeypatch.setattr(build, "_make", noted)
    outcome = update(Project.open(project))
    assert outcome.state == "promoted", outcome.text()
    assert set(made) <= {"room-garnet.md", "room-heron.md", "room-birch.md", "amber.md"}
    told = outcome.changes["documents"]
    assert told["new"] == ["room-garnet.md", "room-heron.md"] and told["changed"] == ["room-birch.md"]
    assert told["moved"] == ["room-amber.md → amber.md"] and not told["removed"]
    now = champion(project)
    assert now.run.inputs["start"] == f"train/{before.run.id}"
    rows = read_examples(find(Project.open(project).store, now.run.inputs["data"]), "train")
    fresh = [example for example in rows if example.groups["since"] == "update 1"]
    plain = [f"{e.question} {e.target}" for e in fresh if not {"unanswerable", "grounded"} & set(e.tags)]
    assert plain and all("Garnet" in said or "Heron" in said or "Birch" in said for said in plain)
    left = {example.question for example in read_examples(now.data, "test")}
    assert {question for question in tests if "Birch" not in question} <= left
    compared = read_compare(now.compare)
    assert {"token_f1", "answer_loss"} <= set(compared["metrics"]) and compared["retention"]["token_loss"]["n"] == 10
    assert "max_retention_rise" in {check["name"] for check in outcome.checks}
    assert "555 euros" in indexed(project) and "22 euros" not in indexed(project)
    assert update(Project.open(project)).state == "nothing"


def test_a_forgotten_document_is_in_no_row_no_index_and_no_weights(project):
    before = champion(project)
    found = forget(Project.open(project), "documents/room-cedar.md")
    assert found.update.state == "promoted", found.text()
    assert [row["release"] for row in found.reached.releases] == ["p/1"] and found.reached.indexes
    now = champion(project)
    assert now.record.parent == "p/1" and "start" not in now.run.inputs and now.run.id != before.run.id
    assert "Cedar" in indexed_of(before) and "Cedar" not in indexed(project)
    assert not any("Cedar" in passage.text for passage in read_passages(now.data))
    assert not any("Cedar" in json.dumps([e.question, e.target]) for e in read_examples(now.data))
    assert [aside.reason for aside in read_set_aside(now.documents)] == ["forgotten"]
    assert now.record.lineage["ingest"] == f"ingest/{now.documents.id}"


def indexed_of(old):
    return " ".join(file.read_text(errors="ignore") for file in (old.record.folder / "index").rglob("*.jsonl"))


def test_a_document_that_makes_no_new_row_still_reaches_the_index(project):
    before = champion(project)
    (project / "documents" / "note.txt").write_text("The parking garage closes at 21:15.\n")
    outcome = update(Project.open(project))
    now = champion(project)
    fresh = [e for e in read_examples(now.data, "train") if e.groups.get("since") == "update 1"]
    assert outcome.state == "promoted" and "21:15" in indexed(project)
    assert (now.run.id == before.run.id) == (not fresh)
