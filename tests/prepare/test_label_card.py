"""The card of labelled data says what a careful person would look for, in one page without a network."""

from __future__ import annotations

import json
import re

from tests.prepare.label_kit import jsonl, run, topics

ROWS = {"kind": "rows", "path": "data.jsonl"}


def card(tmp_path, rows, task="classify"):
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, ROWS, task=task)
    return json.loads((made.path / "card.json").read_text()), (made.path / "card.html").read_text()


def test_every_class_stands_with_its_counts_and_they_add_up(tmp_path):
    data, page = card(tmp_path, topics(120))
    assert [row["label"] for row in data["classes"]] == ["card", "fraud", "loan"]
    assert sum(row["train"] for row in data["classes"]) == data["summary"]["train"]
    assert sum(row["count"] for row in data["classes"]) == 120
    assert all(f"<td>{label}</td>" in page for label in ("card", "fraud", "loan"))
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page


def test_imbalance_small_classes_and_labels_that_differ_in_case_are_pointed_out(tmp_path):
    data, _ = card(tmp_path, [*topics(300, ["Billing"]),
                              *[{"text": f"bill {at}", "label": "billing "} for at in range(6)],
                              *[{"text": f"odd {at}", "label": "fault"} for at in range(5)]])
    said = " ".join(data["warnings"])
    assert "uneven" in said and "fewer than 5 training rows" in said and "'Billing' / 'billing'" in said
    assert "would be right" in said


def test_markup_in_the_data_is_text_in_the_page(tmp_path):
    _, page = card(tmp_path, [*topics(60), {"text": "<script>alert(1)</script> hello", "label": "<b>bold"}])
    assert "<script>" not in page and "<b>bold" not in page and "&lt;b&gt;bold" in page


def test_tags_are_counted_by_piece_and_marked_in_the_samples(tmp_path):
    rows = [{"text": f"Ann {at} met Bob", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for at in range(80)]
    data, page = card(tmp_path, rows, task="tag")
    assert data["classes"][0]["count"] == 80 and "<mark>Ann <b>PER</b></mark>" in page
