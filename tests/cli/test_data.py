"""Laws of `luthier data` and of lineage: what is counted adds up, every row leads to its source, and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import UsageError
from luthier.ingest.base import read_documents
from luthier.prepare.base import read_dropped, read_examples, read_passages
from luthier.project import Project
from luthier.project.browse import browse
from luthier.project.data import dropped, find, summary, text_of_dropped, text_of_found, text_of_summary
from luthier.project.export import export_data, text_of
from luthier.project.show import outline
from luthier.project.trace import trace

HANDBOOK = """# Staff handbook

## Printers

Who repairs printers?
The help desk repairs printers on the second floor, every working day from nine to five.

How do I order toner?
Write to the office with the model of the printer, and it comes within two days.

## Bicycles

Where can I park a bicycle?
Bicycles are parked in the yard behind the canteen, never in the stairwell or the garage.

Who pays for repairs of bicycles?
The company pays for one inspection a year, and you pay for everything else yourself.
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A prepared project: a handbook, its copy in another folder, a page of a PDF, own pairs with a bad line."""
    canvas = pytest.importorskip("reportlab.pdfgen.canvas", reason="needs the extra `dev`")
    root = tmp_path_factory.mktemp("p")
    (root / "documents").mkdir()
    (root / "documents/handbook.md").write_text(HANDBOOK, encoding="utf-8")
    (root / "documents/old.md").write_text(HANDBOOK.replace("Staff handbook", "Old"), encoding="utf-8")
    page = canvas.Canvas(str(root / "documents/rules.pdf"))
    for text in ("Lifts carry at most eight persons and no bicycles at all.",
                 "Visitors sign the book at the gate before they enter the building."):
        page.drawString(72, 720, "House rules of the building")
        page.drawString(72, 690, text)
        page.showPage()
    page.save()
    pairs = [{"question": f"What is rule {at}?", "answer": f"Rule {at} says that </script> is a text."}
             for at in range(8)]
    lines = [json.dumps({**row, "split": "test" if at > 4 else "train"}) for at, row in enumerate(pairs)]
    (root / "pairs.jsonl").write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    (root / "luthier.yaml").write_text(
        "name: desk\nprepare:\n  split: {by: passage}\n"
        "  makers: [{kind: pairs, path: pairs.jsonl}, {kind: faq}, {kind: section}]\n", encoding="utf-8")
    opened = Project.open(root)
    assert [done.stage for done in opened.run(to="prepare")] == ["ingest", "prepare"]
    return opened


def test_the_counts_add_up(project):
    artifact, found = project.artifact("prepare"), summary(project)
    total = len(read_examples(artifact))
    assert sum(found["splits"].values()) == sum(found["steps"].values()) == total
    assert found["sources"]["pairs.jsonl"] == 8
    assert sum(found["dropped"].values()) == len(read_dropped(artifact))
    assert f"splits: {total}" in text_of_summary(found)


def test_find_counts_all_and_shows_some(project):
    found = find(project, "RULE  says", count=2)
    assert found["examples"] == {"count": 0, "rows": []}
    found = find(project, "says that", count=2)
    assert found["examples"]["count"] == 8 and len(found["examples"]["rows"]) == 2
    assert "and 6 more" in text_of_found(found)
    assert find(project, "says that", split="test")["examples"]["count"] == 3
    assert find(project, "sign the book")["passages"]["count"] == 1
    with pytest.raises(UsageError, match="nothing to look for"):
        find(project, "  ")


def test_drops_are_listed_by_reason(project):
    everything = dropped(project)
    assert everything["count"] == sum(one["count"] for one in everything["reasons"]) == len(
        read_dropped(project.artifact("prepare")))
    only = dropped(project, reason="bad-json")
    assert [row["item"] for row in only["rows"]] == ["pairs.jsonl:9"] and "{broken" in text_of_dropped(only)
    with pytest.raises(UsageError, match="pairs: bad-json"):
        dropped(project, reason="bad-jsn")


def test_every_example_passage_and_drop_can_be_traced_to_its_file(project):
    artifact = project.artifact("prepare")
    paths = {document.path for document in read_documents(project.artifact("ingest"))}
    for example in read_examples(artifact):
        found = trace(project, example.id)
        assert found["type"] == "example" and found["origin"]["step"] == example.origin.step
        if example.origin.passages:
            assert {one["path"] for one in found["documents"]} <= paths and found["documents"]
            assert all(one["places"] for one in found["passages"])
    for drop in read_dropped(artifact):
        found = trace(project, drop.item)
        assert found["type"] in ("dropped", "document") and outline(found)
        if found["type"] == "dropped":
            assert found["from"] in {*paths, "pairs.jsonl"}
            assert drop.reason in {one["reason"] for one in found["dropped"]}
    back = trace(project, "handbook.md")
    assert {one["id"] for one in back["examples"]} == {
        example.id for example in read_examples(artifact) if back["id"] in example.origin.documents}


def test_a_passage_of_a_pdf_has_its_page_and_a_box_around_its_words(project):
    [passage] = [one for one in read_passages(project.artifact("prepare")) if "sign the book" in one.text]
    first, place = trace(project, passage.id)["places"]
    assert (first["page"], place["page"]) == (1, 2)
    left, top, right, bottom = place["box"]  # the text was drawn at x 72 and 690 points above the bottom of A4
    assert 70 <= left <= 74 and right < 500 and top < 842 - 690 < bottom + 4


def test_the_page_holds_every_row_and_nothing_breaks_out_of_it(project, tmp_path):
    done = browse(project, tmp_path / "l.html")
    artifact = project.artifact("prepare")
    assert (done.examples, done.dropped, done.left_out) == (
        len(read_examples(artifact)), len(read_dropped(artifact)), 0)
    page = (tmp_path / "l.html").read_text("utf-8")
    assert page.count("</script>") == 2 and "http://" not in page and "https://" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert {row["i"] for row in data["rows"] if row["k"] != "dropped"} == {one.id for one in read_examples(artifact)}
    assert all(row["d"] for row in data["rows"])
    [rule] = [row for row in data["rows"] if row["q"] == "What is rule 1?"]
    assert "</script>" in rule["a"] and rule["d"] == ["pairs.jsonl"]
    assert all(" box " in place[1] for place in data["passages"].values() if place[0].startswith("rules.pdf"))
    short = browse(project, tmp_path / "s.html", count=6)
    assert short.examples + short.dropped == 6 and short.left_out and "did not fit" in short.text()


def test_export_by_the_command_line_and_by_python_agree(project, tmp_path):
    done = export_data(project, tmp_path / "a.jsonl", format="chat", split="train")
    assert done.rows == done.splits["train"] == len(read_examples(project.artifact("prepare"), "train"))
    assert f"read back with the maker {{kind: pairs, path: {tmp_path / 'a.jsonl'}}}" in text_of(done)
    words = ["data", "export", "-C", str(project.root), "-f", "chat", "--split", "train", "--json", "--to"]
    ran = CliRunner().invoke(app, [*words, str(tmp_path / "b.jsonl")])
    assert ran.exit_code == 0 and json.loads(ran.stdout)["rows"] == done.rows
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    again = CliRunner().invoke(app, [*words, str(tmp_path / "b.jsonl")])
    assert isinstance(again.exception, UsageError) and "--overwrite" in str(again.exception)
    assert CliRunner().invoke(app, ["data", "browse", "-C", str(project.root)]).exit_code == 0
    assert (project.state / "lineage.html").is_file()
    with pytest.raises(UsageError, match="NAME=VALUE"):
        export_data(project, Path("x.csv"), format="csv", options=["excel"])
