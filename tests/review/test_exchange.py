"""Items out and decisions in: every format carries every decision there and back, and what it cannot take is counted.

The formats were checked with the tools' own SDKs (argilla 2.8: `Record.from_dict` and `to_dict` give our records back;
label-studio-sdk 2.1: `LabelInterface` accepts our configuration, tasks, predictions and annotations).
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from review_kit import desk, project

from luthier.errors import DataError, UsageError
from luthier.queues import QUEUES
from luthier.review import argilla
from luthier.review.agreement import answer, own
from luthier.review.exchange import FORMATS, read, write

DECISIONS = (
    ("corrections", "photo", "edit", "Kind regards, Ada \u2028& <Co>"), ("corrections", "line-0", "accept", None),
    ("corrections", "line-1", "reject", None), ("pairs", "pair", "edit", {"question": "When?", "answer": "In 10 days"}),
    ("duplicates", "twins", "reject", None), ("privacy", "name", "edit", "address"), ("labels", "r0", "accept", None),
    ("labels", "r1", "edit", ["refund"]), ("labels", "r3", "reject", None))


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A desk on which two people decided, and an empty one with the same items."""
    full, empty = (desk(project(tmp_path_factory.mktemp(name) / "desk")) for name in ("full", "empty"))
    for at, (queue, id, verdict, value) in enumerate(DECISIONS):
        for by in ("ann@example.org", "bob")[: 1 + at % 2]:
            full.decide(queue, id, verdict, value, by=by)
    return full, empty


def told(one, queue):
    items = one.now().of(queue)
    return {id: {by: (said.verdict, answer(said, items.get(id))) for by, said in people.items()}
            for id, people in own(one.now().decided[queue]).items()}


@pytest.mark.parametrize("format", FORMATS)
def test_every_decision_survives_the_way_there_and_back(decided, format, tmp_path):
    full, _ = decided
    empty = desk(project(tmp_path / "desk"))
    for queue in QUEUES:
        written = write(full, tmp_path / f"{queue}.json", format, queue=queue)
        if format == "argilla":  # it knows people by UUID; the names come back where they are known
            for by in ("ann@example.org", "bob"):
                read(empty, tmp_path / f"{queue}.json", by=by, queue="pairs")
        taken = read(empty, tmp_path / f"{queue}.json", None, by="cy")
        assert not taken.refused and taken.taken + taken.known == written.decisions
        again = read(empty, tmp_path / f"{queue}.json", None, by="cy")
        assert (again.taken, again.known) == (0, written.decisions)  # the same file twice changes nothing
    expected = {queue: told(full, queue) for queue in QUEUES}
    found = {queue: told(empty, queue) for queue in QUEUES}
    if format == "argilla":
        names = {argilla.user_id(by): by for by in ("ann@example.org", "bob")}
        found = {queue: {id: {names.get(by, by): said for by, said in people.items()} for id, people in rows.items()}
                 for queue, rows in found.items()}
    assert found == expected


def test_label_studio_shows_what_is_proposed_and_who_decided(decided, tmp_path):
    full, _ = decided
    file = tmp_path / "tasks.json"
    write(full, file, "label-studio", queue="labels")
    view = ElementTree.fromstring((tmp_path / "tasks.config.xml").read_text())
    controls = {one.get("name"): [choice.get("value") for choice in one] for one in view.iter("Choices")}
    assert set(controls["value"]) == {"login", "parcel", "refund"} and view.find("Text[@name='text']") is not None
    tasks = json.loads(file.read_text())
    for task in tasks:
        for one in (*task["predictions"], *task["annotations"]):
            for result in one["result"]:
                assert set(result["value"]["choices"]) <= set(controls[result["from_name"]])
    people = [one.get("completed_by") for task in tasks for one in task["annotations"]]
    assert {"email": "ann@example.org"} in people and None in people  # bob has no address that it could know


def test_an_export_of_label_studio_itself_is_taken(decided, tmp_path):
    """As its own export writes it: users by number or as objects, skipped annotations, drafts, results by name."""
    empty = desk(project(tmp_path / "desk"))
    file = tmp_path / "export.json"

    def choice(name):
        return [{"from_name": "value", "to_name": "text", "type": "choices", "id": "x", "origin": "manual",
                 "value": {"choices": [name]}}]

    file.write_text(json.dumps([
        {"id": 7, "project": 1, "data": {"luthier_id": "r0", "queue": "labels"}, "drafts": [], "annotations": [
            {"id": 1, "completed_by": 10, "was_cancelled": False, "result": choice("refund")},
            {"id": 2, "completed_by": {"id": 11, "email": "eve@example.org"}, "result": choice("login")},
            {"id": 3, "completed_by": 12, "was_cancelled": True, "result": []},
            {"id": 4, "completed_by": 13, "was_cancelled": False, "result": []}]},
        {"id": 8, "data": {"luthier_id": "gone", "queue": "labels"}, "annotations": [
            {"completed_by": 10, "result": choice("login")}]},
        {"id": 9, "data": {"luthier_id": "r3"}, "annotations": [{"completed_by": 10, "result": choice("none such")}]},
        {"id": 10, "data": {"text": "not ours"}, "annotations": []}, "?"]))
    taken = read(empty, file, by="me")
    assert taken.taken == 2 and dict(taken.refused) == {"unknown-id": 1, "no-decision": 2, "without-id": 2}
    assert "gone" in taken.text()
    assert told(empty, "labels") == {"r0": {"label-studio:10": ("edit", "refund"),
                                            "eve@example.org": ("accept", "login")}}


def test_argillas_drafts_and_discarded_responses_are_no_decisions(tmp_path):
    empty = desk(project(tmp_path / "desk"))
    file = tmp_path / "records.json"
    answers = [{"value": "refund", "user_id": "u1"}, {"value": "login", "user_id": "u2", "status": "draft"},
               {"value": "login", "user_id": "u3", "status": "discarded"}]
    file.write_text(json.dumps([{"id": "r0", "fields": {"text": "…"}, "metadata": {"queue": "labels"},
                                 "responses": {"value": answers}, "suggestions": {}, "vectors": {}}]))
    assert read(empty, file).taken == 1 and told(empty, "labels") == {"r0": {"u1": ("edit", "refund")}}


def test_plain_lines_that_an_editor_wrote_are_taken_and_bad_ones_counted(tmp_path):
    one = desk(project(tmp_path / "desk"))
    file = tmp_path / "lines.jsonl"
    file.write_text('{"queue": "corrections", "id": "line-0", "verdict": "accept", "by": "ann"}\n{"id": "line-1"}\n'
                    '{"id": "line-1", "verdict": "edit", "value": "x"}\n{"id": "line-2", "verdict": "yes"}\nnot json\n'
                    '{"id": "nobody", "verdict": "accept"}\n[]\n')
    taken = read(one, file, by="bob")
    assert taken.taken == 2 and taken.examples["not-json"].startswith("line 5")
    assert dict(taken.refused) == {"no-decision": 1, "not-json": 1, "unknown-id": 1, "without-id": 1}
    assert told(one, "corrections")["line-1"] == {"bob": ("edit", "x")}


def test_what_is_no_export_is_one_sentence(decided, tmp_path):
    full, _ = decided
    (tmp_path / "x.json").write_text("[{")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(DataError, match="is not JSON"):
        read(full, tmp_path / "x.json", "argilla")
    with pytest.raises(DataError, match="no list of tasks"):
        read(full, tmp_path / "y.json", "label-studio")
    with pytest.raises(UsageError, match="cannot be read"):
        read(full, tmp_path / "z.json")
    with pytest.raises(UsageError, match="choose one with --queue"):
        write(full, tmp_path / "z.json", "argilla")
    with pytest.raises(UsageError, match="there are: jsonl"):
        write(full, tmp_path / "z.json", "csv")
    with pytest.raises(UsageError, match="no folder"):
        write(full, tmp_path / "no/z.json")
