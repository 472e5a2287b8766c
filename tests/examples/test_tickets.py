"""Laws of the tickets: the README tells what stands in the table, prepare reports what is planted, and a head on frozen
features learns it."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from luthier.prepare.base import Prepare, prepare, read_examples
from luthier.prepare.makers.rows import Rows
from luthier.store import Store
from luthier.task import Task

HERE = Path(__file__).parents[2] / "examples" / "tickets"
README = (HERE / "README.md").read_text("utf-8")
TASK = Task(type="classify")


def table():
    """(line, row) pairs; every message is one line."""
    with (HERE / "tickets.csv").open(encoding="utf-8", newline="") as file:
        return list(enumerate(csv.DictReader(file), 2))


def prepared(root):
    maker = Rows(path=str(HERE / "tickets.csv"), text="text", label="intent", group_by="customer")
    store = Store(root)
    return prepare(None, TASK, Prepare(makers=(maker,)), store=store, root=root), store


def test_the_readme_counts_what_stands_in_the_table():
    rows = table()
    counts = Counter(row["intent"] for _, row in rows)
    assert f"{len(rows)} messages" in README
    assert {name: int(number) for name, number in re.findall(r"^\| `(\w+)` \| (\d+) \|", README, re.MULTILINE)} == {
        name: number for name, number in counts.items() if name}
    assert f"| none | {counts['']} |" in README
    customers = Counter(row["customer"] for _, row in rows)
    assert f"{sum(n > 1 for n in customers.values())} of the {len(customers)} customers" in README
    assert all(re.fullmatch(r"C\d{4}", name) for name in customers)


def test_the_lines_of_wrong_labels_hold_these_texts_and_labels():
    rows = dict(table())
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \| (.+?) … \|$", README, re.MULTILINE)
    assert len(listed) == 5
    for line, given, right, text in listed:
        row = rows[int(line)]
        assert row["text"].startswith(text) and row["intent"] == given != right, line


def test_prepare_reports_what_is_planted_and_nothing_else(tmp_path):
    data, _ = prepared(tmp_path)
    dropped = [json.loads(line) for line in (data.path / "dropped.jsonl").read_text("utf-8").splitlines()]
    assert Counter(row["reason"] for row in dropped) == {"empty-text": 1, "duplicate": 3, "conflicting-label": 2}
    assert data.summary["unlabelled"] == 30 and data.summary["labels"] == 7
    lines = {int(number) for row in dropped for number in re.findall(r"tickets\.csv:(\d+)",
                                                                     f"{row['item']} {row['detail']}")}
    assert {str(line) for line in lines} <= set(re.findall(r"\d+", README))
    assert lines == {60, 235, 410, 277, 338, 306, 353, 296, 394}


def test_a_customers_messages_stay_in_one_split(tmp_path):
    data, _ = prepared(tmp_path)
    splits = {}
    for example in read_examples(data):
        splits.setdefault(example.groups["together"], set()).add(example.split)
    assert max(len(found) for found in splits.values()) == 1
    assert data.summary["disjoint"] == "document" and data.summary["test"] >= 50


def test_luthier_new_finds_columns_classes_and_the_group(tmp_path):
    from luthier.project.new import new

    made = new(tmp_path / "tickets", task="classify", data=HERE / "tickets.csv")
    text = (tmp_path / "tickets" / "luthier.yaml").read_text("utf-8")
    assert "{kind: rows, path: data/tickets.csv, text: text, label: intent, group_by: customer}" in text
    assert any("30 rows without a label" in line for line in made.told)


@pytest.mark.slow
def test_a_head_on_frozen_features_beats_the_commonest_class_by_far(tmp_path):
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.full import Full
    from luthier.train.base import Train, train
    from luthier.train.plans.head import HeadOnly

    data, store = prepared(tmp_path)
    model = adapt(TASK, Adapt(model="starter:encoder", method=Full()), store=store)
    run = train(model, data, Train(plan=HeadOnly()), store=store)
    held = [example.labels[0] for example in read_examples(data, "validation")]
    commonest = max(Counter(held).values()) / len(held)
    found = run.summary["validation"]
    assert run.summary["cached_features"] and found["n"] == len(held)
    assert found["value"] > commonest + 0.4, found
