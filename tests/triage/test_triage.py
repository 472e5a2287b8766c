"""Laws of triage: what is in doubt is left open and asked about, what is known is not done again, decisions count."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from luthier.errors import DataError, SpecError
from luthier.project import Project
from luthier.project.triage import sort_documents
from luthier.queues import read_review
from luthier.triage import classes
from luthier.triage.base import Triage, triage

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
YAML = """
triage:
  classes:
    - {name: bill, examples: [examples/bill], dataset: bills}
    - {name: letter, examples: [examples/letter.txt]}
  fields:
    - {name: total, type: amount, labels: [total], classes: [bill], required: true}
"""
WORDS = ("invoice", "dear", "total", "yours")


class Here:
    """Reads in this process: workers cost a second each to start."""

    def map(self, function, items, *, timeout_s, memory_mb):
        return ((item, function(item)) for item in items)


class Words:
    """An encoder whose vector counts a few words."""

    asked: list[str] = []

    def encode(self, texts, **rest):
        self.asked.extend(texts)
        found = np.array([[text.lower().count(word) for word in WORDS] + [0.3] for text in texts], dtype=np.float32)
        found = found.reshape(len(texts), len(WORDS) + 1)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(classes.Classifier, "_encoder", lambda self: Words())
    Words.asked = []
    write(tmp_path, {"luthier.yaml": YAML, "examples/bill/1.txt": "Invoice 1. Total: 3.00",
                     "examples/bill/2.txt": "invoice two, total: 4.00", "examples/letter.txt": "Dear Ann, yours Tom",
                     "inbox/a.txt": "Invoice 7\n\nTotal: 12.50", "inbox/b.txt": "Dear Sir, I am yours",
                     "inbox/c.txt": "Dear client, your invoice is here",
                     "inbox/d.txt": "Invoice 9 without a sum, total"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def sort(root: Path):
    found = sort_documents(Project.open(root), [root / "inbox"], executor=Here())
    return found, {row["path"]: row for row in map(json.loads, (root / "triage/triage.jsonl").read_text().splitlines())}


def test_class_data_set_and_fields_of_every_document_and_doubt_is_left_open(project):
    made, rows = sort(project)
    assert [rows[f"{name}.txt"]["class"] for name in "abcd"] == ["bill", "letter", None, "bill"]
    assert rows["a.txt"]["dataset"] == "bills" and rows["b.txt"]["dataset"] == "letter"
    total = rows["a.txt"]["fields"]["total"]
    assert (total["value"], total["line"], total["method"]) == ("12.50", 3, "label")
    assert rows["b.txt"]["fields"] == {} and rows["d.txt"]["missing"] == ["total"]
    table = list(csv.DictReader((project / "triage/triage.csv").open()))
    assert table[0] == {"path": "a.txt", "class": "bill", "dataset": "bills", "total": "12.50",
                        "probability": str(rows["a.txt"]["probability"])}
    asked = {item.path: item for item in read_review(made.artifact.path)}
    assert set(asked) == {"c.txt", "d.txt"} and asked["c.txt"].choices == ("bill", "letter")
    assert "'total' was not found" in asked["d.txt"].reason and "2 bill, 1 letter" in made.text()


def test_only_new_files_are_judged_and_a_second_run_changes_nothing(project):
    first, rows = sort(project)
    again, same = sort(project)
    assert again.artifact.id == first.artifact.id and not again.artifact.fresh and same == rows
    write(project, {"inbox/e.txt": "Invoice 8\nTotal: 1.00"})
    Words.asked.clear()
    _, more = sort(project)
    assert {**rows, "e.txt": more["e.txt"]} == more and more["e.txt"]["class"] == "bill"
    assert [text for text in Words.asked if "Invoice 7" in text] == []


def test_a_decision_is_the_class_and_an_example_for_the_next(project):
    _, rows = sort(project)
    write(project, {"labels/decisions.jsonl": json.dumps({"id": rows["c.txt"]["id"], "labels": ["letter"]}) + "\n"
                    + json.dumps({"where": "elsewhere.csv:3", "labels": ["bill"]}) + "\n",
                    "inbox/f.txt": "dear client, your invoice is here again"})
    made, rows = sort(project)
    assert (rows["c.txt"]["class"], rows["c.txt"]["by"]) == ("letter", "person")
    assert rows["f.txt"]["class"] == "letter"
    assert "c.txt" not in {item.path for item in read_review(made.artifact.path)}


def test_a_forgotten_document_is_set_aside(project):
    write(project, {"labels/forgotten.jsonl": json.dumps({"document": "a.txt", "sha256": "0" * 64}) + "\n"})
    made, rows = sort(project)
    assert set(rows) == {"b.txt", "c.txt", "d.txt"} and made.artifact.summary["set_aside"] == 1
    assert "forgotten" in (project / "triage/set_aside.jsonl").read_text()


def test_a_cell_that_a_spreadsheet_would_run_is_made_text(project):
    write(project, {"inbox/=cmd.txt": "Invoice\nTotal: -3.00"})
    sort(project)
    cells = list(csv.reader((project / "triage/triage.csv").open()))[1]
    assert cells[0] == "'=cmd.txt" and cells[-1] == "-3.00"


def test_many_examples_measure_themselves(project):
    for at in range(8):
        write(project, {f"examples/bill/m{at}.txt": f"invoice {at} total",
                        f"examples/letters/{at}.txt": f"dear {at} yours"})
    (project / "luthier.yaml").write_text(YAML.replace("examples/letter.txt", "examples/letters"), "utf-8")
    made, _ = sort(project)
    measured = made.artifact.summary["examples_measured"]
    assert (measured["accuracy"], measured["n"]) == (1, 18)
    assert "each judged by the others: 100%" in made.text()


def test_a_class_without_examples_is_known_by_its_description(project):
    text = YAML.replace("examples: [examples/letter.txt]", "description: dear somebody yours somebody")
    (project / "luthier.yaml").write_text(text, "utf-8")
    _, rows = sort(project)
    assert rows["b.txt"]["class"] == "letter" and list(rows["b.txt"]["votes"]) == ["descriptions"]


def test_a_chat_model_is_asked_about_doubtful_documents_only_and_its_values_must_be_quotes(project, monkeypatch):
    asked = []

    def chances(self, texts, context):
        asked.extend(texts)
        return np.array([[0.05, 0.95]] * len(texts))

    class Chat:
        def complete(self, prompts, **rest):
            from luthier.models.base import Completion

            return [Completion(text="without a sum" if "9" in prompt[0].content else "99.00", num_prompt_tokens=0,
                               num_tokens=0, finish="stop", seconds=0) for prompt in prompts]

    monkeypatch.setattr("luthier.prepare.weak.zero_shot.ZeroShotLabeler.chances", chances)
    monkeypatch.setattr("luthier.triage.run._local", lambda *rest: Chat())
    text = YAML.replace("type: amount, labels: [total], ", "pattern: 'total: (.*)', ")
    (project / "luthier.yaml").write_text(text + "  chat: starter:chat\n", "utf-8")
    _, rows = sort(project)
    assert asked == ["Dear client, your invoice is here"] and rows["c.txt"]["class"] == "letter"
    assert rows["c.txt"]["votes"]["chat"] == ["letter", 0.95]
    assert rows["d.txt"]["fields"]["total"]["method"] == "chat"
    assert rows["d.txt"]["fields"]["total"]["quote"] == "without a sum"


@pytest.mark.parametrize(("change", "error", "said"), [
    (("examples: [examples/letter.txt]", "examples: [nowhere]"), DataError, "'nowhere' of the class 'letter' does not"),
    (("examples: [examples/letter.txt]", "dataset: x"), DataError, "neither an example document nor a description"),
    (("  fields:", "  release: live\n  fields:"), DataError, "nothing has been released yet")])
def test_what_is_missing_is_named(project, change, error, said):
    (project / "luthier.yaml").write_text(YAML.replace(*change), "utf-8")
    with pytest.raises(error, match=said):
        sort(project)


def test_nothing_to_look_for_is_an_error(project):
    with pytest.raises(SpecError, match="nothing to look for"):
        triage([project / "inbox"], Triage(), store=Project.open(project).store, root=project, executor=Here())


@pytest.mark.skipif(not (DATA / "receipts").is_dir(), reason="no shared/data/receipts beside the checkout")
def test_receipts_give_their_dates(tmp_path):
    """Real receipts, true text: the date is found in every one and equals what people wrote down."""
    from luthier.triage.base import Field

    for file in sorted((DATA / "receipts").glob("*.txt")):
        write(tmp_path, {f"inbox/{file.name}": file.read_text("utf-8")})
    made = triage([tmp_path / "inbox"], Triage(fields=(Field(name="date", type="date", labels=("date",)),)),
                  store=Project(root=tmp_path, spec=None).store, root=tmp_path, executor=Here())  # type: ignore[arg-type]
    right = 0
    for row in map(json.loads, (made.path / "triage.jsonl").read_text().splitlines()):
        truth = json.loads((DATA / "receipts" / row["path"].replace(".txt", ".fields.json")).read_text("utf-8"))["date"]
        right += row["fields"]["date"]["value"] == truth
    assert right >= 7
