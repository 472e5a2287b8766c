"""Decisions about rows: a person may take one back, or look and leave the row as it is."""

import json
from pathlib import Path

from luthier.prepare.decisions import Decision, LeftOpen, decided_rows, read_decisions, read_looked_at
from luthier.types import Dropped, Example, Origin


def lines(root: Path, *rows: dict) -> None:
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels/decisions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_a_decision_that_is_taken_back_changes_nothing(tmp_path):
    row = Example(id="1", input="late parcel\u2028again", target=None, labels=("login",),
                  origin=Origin(maker="human", step="rows", where="a.csv:2"))
    made = {"id": "1", "text": row.input, "labels": ["parcel"], "by": "ann"}
    lines(tmp_path, made, {"id": "1", "undo": True, "by": "bob"})
    dropped: list[Dropped] = []
    assert decided_rows([row], tmp_path, dropped, id_of=lambda e: e.id)[0].labels == ("parcel",) and not dropped
    lines(tmp_path, made, {"id": "1", "undo": True, "by": "ann"})
    assert decided_rows([row], tmp_path, dropped, id_of=lambda e: e.id) == {} and not dropped


def test_a_row_left_open_is_no_decision_and_is_not_asked_again(tmp_path):
    lines(tmp_path, {"id": "1", "verdict": "reject", "by": "ann"}, {"id": "2"}, {"id": "3", "labels": "a"})
    assert [type(one) for one in read_looked_at(tmp_path)] == [LeftOpen, Dropped, Decision]
    assert [type(one) for one in read_decisions(tmp_path)] == [Dropped, Decision]
