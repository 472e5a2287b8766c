"""Review queues: decisions survive, are read back as written, and a broken line is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.errors import DataError
from luthier.queues import (
    Decided,
    ReviewItem,
    decide,
    decided_hash,
    latest,
    read_decided,
    read_review,
    undo,
    write_review,
)


def test_decisions_are_appended_and_the_last_one_holds(tmp_path: Path) -> None:
    assert read_decided(tmp_path, "pairs") == [] and decided_hash(tmp_path, "pairs") == ""
    decide(tmp_path, "pairs", Decided(id="a", verdict="accept", by="ann", text="Größe\u2028x"))
    before = decided_hash(tmp_path, "pairs")
    (tmp_path / "labels/pairs.jsonl").open("a").write('{"id": "b", "verdict": "reject"}')  # an editor left no newline
    decide(tmp_path, "pairs", Decided(id="a", verdict="edit", value="x", by="bob"))
    found = read_decided(tmp_path, "pairs")
    assert [(one.id, one.verdict, one.by) for one in found] == [("a", "accept", "ann"), ("b", "reject", ""),
                                                               ("a", "edit", "bob")]
    assert found[0].text == "Größe\u2028x" and found[1].source == "labels/pairs.jsonl:2"
    assert latest(found)["a"].value == "x" and decided_hash(tmp_path, "pairs") != before


@pytest.mark.parametrize("line, said", [
    ("{", "not JSON"), ("[]", "needs the `id`"), ('{"id": "a", "verdict": "yes"}', "accept, edit or reject"),
    ('{"id": "a", "verdict": "edit"}', "right `value`")])
def test_a_broken_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/privacy.jsonl").write_text('{"id": "a", "verdict": "accept"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"labels/privacy\.jsonl:2: .*{said}"):
        read_decided(tmp_path, "privacy")


def test_items_are_read_back_as_written(tmp_path: Path) -> None:
    items = [ReviewItem(queue="corrections", id="1", text="He1lo", proposal="He1lo", confidence=0.4, page=2,
                        box=(1.0, 2.0, 3.0, 4.0), choices=("a", "b"), notes={"engine": "x"}),
             ReviewItem(queue="labels", id="2", text="t", proposal=["a"])]
    assert read_review(tmp_path) == [] and write_review(tmp_path, items) == 2 and read_review(tmp_path) == items


def test_undo_takes_back_the_last_decision_of_that_person_and_leaves_the_lines(tmp_path: Path) -> None:
    for by, verdict in (("ann", "accept"), ("bob", "reject"), ("ann", "reject")):
        decide(tmp_path, "pairs", Decided(id="a", verdict=verdict, by=by, settles=by == "bob"))
    undo(tmp_path, "pairs", "a", by="ann")
    assert [(one.by, one.verdict, one.settles) for one in read_decided(tmp_path, "pairs")] == [
        ("ann", "accept", False), ("bob", "reject", True)]
    undo(tmp_path, "pairs", "a")  # of anybody
    undo(tmp_path, "pairs", "b")  # of nothing
    assert [one.by for one in read_decided(tmp_path, "pairs")] == ["ann"]
    assert len((tmp_path / "labels/pairs.jsonl").read_text().splitlines()) == 6


def test_writers_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    script = ("import sys, pathlib\nfrom luthier.queues import Decided, decide\n"
              "for n in range(40): decide(pathlib.Path(sys.argv[1]), 'pairs', Decided(id=f'{sys.argv[2]}-{n}', "
              "verdict='edit', value='long ' * 3000))")
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(who)]) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert {one.id for one in read_decided(tmp_path, "pairs")} == {f"{who}-{n}" for who in range(3) for n in range(40)}
    assert all(json.loads(line) for line in (tmp_path / "labels/pairs.jsonl").open())
