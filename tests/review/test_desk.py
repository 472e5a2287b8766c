"""The desk: the least certain first, each decision in its file and honoured there, nothing told to a second reader."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from review_kit import BOXES, desk, project, rows

from luthier.errors import DataError, UsageError
from luthier.prepare.decisions import decided_rows
from luthier.queues import Decided, decide, read_decided
from luthier.review.desk import changes, progress
from luthier.review.pages import Pages
from luthier.review.view import differences, view
from luthier.types import Dropped


@pytest.fixture()
def root(tmp_path):
    return project(tmp_path / "desk")


def lines(root: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (root / "labels" / name).read_text().splitlines()]


def test_the_least_certain_comes_first_and_what_is_decided_is_not_asked_again(root):
    one = desk(root)
    assert [item.id for item in one.todo("corrections", "open", "ann")] == ["photo", "line-2", "line-1", "line-0"]
    one.decide("corrections", "photo", "edit", "Kind regards, Ada", by="ann")
    one.decide("corrections", "line-2", "reject", by="ann")
    one.decide("corrections", "line-1", "accept", by="ann")
    assert [item.id for item in one.todo("corrections", "open", "bob")] == ["line-0"]
    made = read_decided(root, "corrections")
    assert [(d.id, d.verdict, d.value, d.by) for d in made] == [
        ("photo", "edit", "Kind regards, Ada", "ann"), ("line-2", "reject", None, "ann"),
        ("line-1", "accept", "Deliver tw0 cart0ns t0 the ware h0use", "ann")]
    assert all(d.at.endswith("Z") and d.text and d.where for d in made)
    one.undo("corrections", "line-1", by="ann")
    assert [item.id for item in one.todo("corrections", "open", "bob")] == ["line-1", "line-0"]
    with pytest.raises(UsageError, match="bob has decided nothing"):
        one.undo("corrections", "photo", by="bob")


def test_decisions_about_rows_are_what_prepare_honours_also_for_long_texts(root):
    """`suspects.json` keeps 300 characters of a text; the decision names the whole row."""
    one = desk(root)
    assert [item.id for item in one.todo("labels", "open", "ann")] == ["r1", "r0", "r3"]
    one.decide("labels", "r1", "accept", by="ann")
    one.decide("labels", "r0", "reject", by="ann")  # the suspicion is wrong: the label that stands there is right
    one.decide("labels", "r3", "reject", by="ann")  # no label is known
    dropped: list[Dropped] = []
    made = decided_rows(rows(), root, dropped, id_of=lambda example: example.id)
    assert {at: row.labels for at, row in made.items()} == {0: ("parcel",), 1: ("parcel",)} and not dropped
    assert all(row.origin.maker == "human" and "decided" in row.tags for row in made.values())
    assert not desk(root).todo("labels", "open", "ann")
    one.undo("labels", "r1", by="ann")
    assert [item.id for item in one.todo("labels", "open", "ann")] == ["r1"]
    assert list(decided_rows(rows(), root, dropped, id_of=lambda e: e.id)) == [0]


def test_a_decision_that_an_editor_wrote_by_place_or_text_counts_on_the_desk(root):
    (root / "labels/decisions.jsonl").write_text('{"where": "data.csv:3", "labels": "refund"}\n'
                                                 '{"text": "Hello  there", "labels": ["login"]}\n{"labels": ["x"]}\n')
    one = desk(root)
    assert [item.id for item in one.todo("labels", "open", "ann")] == ["r0"]
    assert [(d.id, d.verdict) for d in one.now().decided["labels"]] == [("r1", "edit"), ("r3", "accept")]
    assert any("names no row" in problem for problem in one.now().problems)


@pytest.mark.parametrize(("queue", "id", "verdict", "value", "said"), [
    ("labels", "r0", "edit", ["logn"], "none of the labels"),
    ("labels", "r0", "edit", ["login", "refund"], "one label"),
    ("pairs", "pair", "edit", {"question": "Q?"}, "a question and an answer"),
    ("corrections", "photo", "edit", " ", "right text"),
    ("privacy", "name", "edit", "dog", "none of: person"), ("privacy", "gone", "accept", None, "no item 'gone'"),
    ("privacy", "name", "maybe", None, "accept, edit or reject")])
def test_what_cannot_be_a_decision_is_refused_and_not_written(root, queue, id, verdict, value, said):
    with pytest.raises(UsageError, match=said):
        desk(root).decide(queue, id, verdict, value, by="ann")
    with pytest.raises(UsageError, match="name of the person"):
        desk(root).decide("privacy", "name", "accept", by=" ")
    assert {file.name for file in (root / "labels").iterdir()} == {"proposed.jsonl"}


def test_a_second_reader_sees_what_others_decided_but_not_what(root):
    one = desk(root)
    one.decide("privacy", "name", "edit", "address", by="ann")
    assert one.todo("privacy", "second", "ann") == []
    [item] = one.todo("privacy", "second", "bob")
    assert "ann" not in json.dumps(shown := view(one, item, "second")) and shown["decided"] is None
    assert view(one, item, "open")["decided"]["answer"] == "address"
    one.decide("privacy", "name", "accept", by="bob")
    [item] = one.todo("privacy", "conflicts", "cy")
    assert [(said["by"], said["answer"]) for said in view(one, item, "conflicts")["said"]] == [("ann", "address"),
                                                                                            ("bob", "person")]
    one.decide("privacy", "name", "accept", by="cy", settles=True)
    assert one.todo("privacy", "conflicts", "cy") == []
    [agreed] = one.agreements()
    assert (agreed.people, agreed.n, agreed.same) == (("ann", "bob"), 1, 0)  # settling is no third opinion
    one.decide("privacy", "name", "reject", by="dan")
    assert one.todo("privacy", "conflicts", "cy")  # a later doubt opens it again


def test_desks_on_one_project_and_an_editor_see_each_other_and_lose_nothing(root):
    one, two = desk(root), desk(root)
    work = [threading.Thread(target=lambda who=who, by=by: [who.decide("corrections", f"line-{n % 3}", "accept", by=by)
                                                            for n in range(20)])
            for who, by in ((one, "ann"), (two, "bob"), (two, "cy"))]
    [thread.start() for thread in work]
    [thread.join() for thread in work]
    assert len(lines(root, "corrections.jsonl")) == 60
    decide(root, "corrections", Decided(id="photo", verdict="accept"))
    assert not one.todo("corrections", "open", "x") and not two.todo("corrections", "open", "x")
    (root / "labels/pairs.jsonl").write_text("{\n")
    assert any("labels/pairs.jsonl:1: not JSON" in problem for problem in one.now().problems)
    assert one.todo("pairs", "open", "x")  # one broken file stops no other


def test_progress_and_what_the_next_run_changes_are_told(root):
    one = desk(root)
    assert changes(one) == []
    for id in ("line-0", "line-1"):
        one.decide("corrections", id, "accept", by="ann")
    one.decide("labels", "r0", "reject", by="bob")
    told = {row["queue"]: row for row in progress(one, "ann")}
    assert {key: told["corrections"][key] for key in ("items", "decided", "open", "mine", "second")} == {
        "items": 4, "decided": 2, "open": 2, "mine": 2, "second": 0}
    assert told["labels"]["second"] == 1 and told["corrections"]["per_minute"] is None
    assert [line.split(":")[0] for line in changes(one)] == ["2 lines", "1 row"]
    done = root / ".luthier/store/ingest" / one.now().artifacts["ingest"].id / "DONE"
    done.write_text(json.dumps({"made_at": 4e9}))  # ingest ran after that
    os.utime(root / ".luthier/latest.json")
    assert [line.split(":")[0] for line in changes(desk(root))] == ["1 row"]


def test_differences_are_marked_and_nothing_is_lost():
    one, two = "Press the red button\nfor ten seconds.", "Press the green button\nfor 10 seconds!"
    left, right = differences(one, two)
    assert "".join(text for text, _ in left) == one and "".join(text for text, _ in right) == two
    assert [text for text, mark in left if mark] == ["red", "ten", "."]
    assert [text for text, mark in right if mark] == ["green", "10", "!"]


def test_a_page_is_drawn_and_its_box_lies_on_the_words(root):
    import io

    from PIL import Image

    one = desk(root)
    pages = Pages(root, ["documents"], longest_px=1200, timeout_s=60)
    page = pages.page(one.item("corrections", "line-1"), None)
    image = Image.open(io.BytesIO(page.png)).convert("L")
    assert max(image.size) == 1200 and (round(page.width), round(page.height)) == (595, 842)
    scale = image.width / page.width
    dark = [sum(pixel < 128 for pixel in image.crop([int(side * scale) for side in box]).tobytes())
            for box in (BOXES[1], (72, 300, 420, 322))]
    assert dark[0] > 300 and dark[1] == 0
    assert (pages.page(one.item("corrections", "photo"), None).width) == 600


def test_no_file_outside_of_the_sources_is_opened(root, tmp_path):
    from dataclasses import replace

    (tmp_path / "secret.png").write_bytes((root / "documents/photo.png").read_bytes())
    (root / "documents/link.png").symlink_to(tmp_path / "secret.png")
    pages = Pages(root, ["documents"], longest_px=400, timeout_s=60)
    item = desk(root).item("corrections", "photo")
    for path in ("../../secret.png", str(tmp_path / "secret.png"), "link.png", "../luthier.yaml", "gone.png"):
        with pytest.raises(DataError, match="not among the sources"):
            pages.page(replace(item, path=path), None)
    with pytest.raises(DataError, match="outside of the project"):
        pages.page(replace(item, notes={"image": str(tmp_path / "secret.png")}), None)
    (root / "documents/text.txt").write_text("no image")
    with pytest.raises(DataError, match="neither a PDF nor an image"):
        pages.page(replace(item, path="text.txt"), None)
    with pytest.raises(DataError, match="has 1 pictures and no number 7"):
        pages.page(replace(item, page=7), None)


def test_a_decision_right_after_a_stage_began_is_news_though_the_beginning_is_rounded_up(root, monkeypatch):
    one = desk(root)
    done = root / ".luthier/store/ingest" / one.now().artifacts["ingest"].id / "DONE"
    done.write_text(json.dumps({"made_at": 1_800_000_000.0}))  # it began at …999.97
    os.utime(root / ".luthier/latest.json")
    one = desk(root)
    monkeypatch.setattr("luthier.review.desk._stamp", lambda: "2027-01-15T07:59:59.990Z")
    one.decide("corrections", "line-0", "accept", by="ann")
    assert [line.split(":")[0] for line in changes(one)] == ["1 line"]
