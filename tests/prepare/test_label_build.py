"""Laws of prepared labelled data: a fair frozen split, no repeats across it, every class trained, nothing lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from luthier.errors import DataError, SpecError
from luthier.prepare.base import Prepare, prepare, read_dropped, read_examples, read_passages
from luthier.prepare.labels import read_labels
from luthier.store import Store
from luthier.task import Task
from tests.prepare.label_kit import DATA, jsonl, run, topics

ROWS = {"kind": "rows", "path": "data.jsonl"}
LONG = ("The supplier shall keep the goods insured at its own cost against fire theft and water until they are "
        "accepted by the buyer in writing")


def test_a_table_becomes_an_artifact_with_all_its_files(tmp_path):
    jsonl(tmp_path / "data.jsonl", topics())
    made = run(tmp_path, ROWS)
    assert {"examples.jsonl", "dropped.jsonl", "splits.json", "labels.json", "passages.jsonl", "card.json",
            "card.html"} <= {file.name for file in made.path.iterdir()}
    assert read_labels(made) == ("card", "fraud", "loan") and read_passages(made) == []
    examples = read_examples(made)
    assert len(examples) == made.summary["examples"] == 60 and len({e.id for e in examples}) == 60
    assert made.summary["train"] + made.summary["validation"] + made.summary["test"] == 60
    assert all(e.origin.where.startswith("data.jsonl:") and e.origin.maker == "human" for e in examples)


def test_the_same_data_and_seed_give_the_same_split_and_another_seed_another(tmp_path):
    jsonl(tmp_path / "data.jsonl", topics())
    one, two = run(tmp_path, ROWS, store=tmp_path / "a"), run(tmp_path, ROWS, store=tmp_path / "b")
    assert (one.path / "examples.jsonl").read_bytes() == (two.path / "examples.jsonl").read_bytes()
    other = run(tmp_path, ROWS, seed=1)
    assert other.summary["test_hash"] != one.summary["test_hash"]


def test_rows_added_on_top_leave_old_rows_in_their_split_with_their_ids(tmp_path):
    rows = topics(300)
    jsonl(tmp_path / "data.jsonl", rows)
    before = {e.input: (e.id, e.split) for e in read_examples(run(tmp_path, ROWS))}
    jsonl(tmp_path / "data.jsonl", [{"text": f"new {at}", "label": "card"} for at in range(30)] + rows)
    after = {e.input: (e.id, e.split) for e in read_examples(run(tmp_path, ROWS))}
    assert all(after[text][0] == id for text, (id, _) in before.items())
    moved = sum(after[text][1] != split for text, (_, split) in before.items())
    assert moved <= 0.03 * len(before)


def test_a_changed_label_changes_the_id(tmp_path):
    rows = topics()
    jsonl(tmp_path / "data.jsonl", rows)
    before = {e.input: e.id for e in read_examples(run(tmp_path, ROWS))}
    rows[0]["label"] = "loan"
    jsonl(tmp_path / "data.jsonl", rows)
    after = {e.input: e.id for e in read_examples(run(tmp_path, ROWS))}
    assert {text for text in before if before[text] != after[text]} == {rows[0]["text"]}


def test_of_equal_rows_one_stays_and_it_is_the_test_one(tmp_path):
    rows = [*topics(), {"text": "Message 3, about the CARD!", "label": "card", "split": "test"}]
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, ROWS)
    kept = [e for e in read_examples(made) if e.input.lower().startswith(("message 3,", "message 3 "))]
    assert [(e.input, e.split) for e in kept] == [("Message 3, about the CARD!", "test")]
    assert "duplicate" in {d.reason for d in read_dropped(made)}


def test_contradicting_train_rows_go_and_are_shown_but_a_majority_or_a_test_row_decides(tmp_path):
    rows = [*topics(), {"text": "tie", "label": "card"}, {"text": "tie", "label": "loan"},
            {"text": "most", "label": "card"}, {"text": "most", "label": "card"}, {"text": "most", "label": "loan"},
            {"text": "held", "label": "card", "split": "test"}, {"text": "held", "label": "loan"}]
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, ROWS)
    kept = {e.input: e.labels for e in read_examples(made)}
    assert "tie" not in kept and kept["most"] == ("card",) and kept["held"] == ("card",)
    assert Counter(d.reason for d in read_dropped(made)) == {"conflicting-label": 4, "duplicate": 1}
    card = json.loads((made.path / "card.json").read_text())
    assert card["conflict_count"] == 3 and any("different labels" in warning for warning in card["warnings"])


def test_the_datas_own_split_is_kept_and_only_what_it_does_not_name_is_drawn(tmp_path):
    jsonl(tmp_path / "data" / "train.jsonl", topics(90))
    jsonl(tmp_path / "data" / "test.jsonl", [{"text": f"asked {at}", "label": "card"} for at in range(20)])
    made = run(tmp_path, {"kind": "rows", "path": "data"})
    by_split = {split: read_examples(made, split) for split in ("train", "validation", "test")}
    assert len(by_split["test"]) == 20 and all(e.input.startswith("asked") for e in by_split["test"])
    assert 4 <= len(by_split["validation"]) <= 16
    assert len(by_split["train"]) + len(by_split["validation"]) == 90


def test_rows_of_one_group_share_a_split_also_where_the_data_names_the_split(tmp_path):
    rows = [{**row, "client": f"c{at % 20}"} for at, row in enumerate(topics(200))]
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, {**ROWS, "group_by": "client"})
    sides: dict[str, set[str]] = {}
    for example in read_examples(made):
        sides.setdefault(example.groups["together"], set()).add(example.split)
    assert len(sides) == 20 and all(len(side) == 1 for side in sides.values())
    assert made.summary["disjoint"] == "document"
    rows[0]["split"], rows[20]["split"] = "test", "train"  # the same client on both sides
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, {**ROWS, "group_by": "client"})
    assert "leak-group" in {d.reason for d in read_dropped(made)}


def test_every_class_is_trained_and_split_near_its_share(tmp_path):
    labels = [f"class{at}" for at in range(12)]
    jsonl(tmp_path / "data.jsonl", topics(12 * 40, labels))
    counts = Counter((e.labels[0], e.split) for e in read_examples(run(tmp_path, ROWS)))
    for label in labels:
        assert 4 <= counts[label, "test"] <= 9 and 2 <= counts[label, "validation"] <= 6


def test_a_class_with_one_row_is_trained_on_and_few_rows_are_not_all_held_out(tmp_path):
    jsonl(tmp_path / "data.jsonl", [*topics(90), {"text": "the only one", "label": "rare"}])
    examples = read_examples(run(tmp_path, ROWS))
    assert [e.split for e in examples if e.labels == ("rare",)] == ["train"]
    jsonl(tmp_path / "data.jsonl", topics(3 * 40, [f"class{at}" for at in range(40)]))
    made = run(tmp_path, ROWS)
    assert made.summary["train"] >= 70 and made.summary["test"] >= 8 and made.summary["labels"] == 40


def test_a_label_that_is_tested_but_never_trained_is_an_error_with_its_rows(tmp_path):
    jsonl(tmp_path / "data.jsonl", [*topics(), {"text": "odd", "label": "novel", "split": "test"}])
    with pytest.raises(DataError, match=r"novel: data\.jsonl:61 \(test\)"):
        run(tmp_path, ROWS)


def test_a_named_label_without_a_train_row_is_an_error_and_other_labels_are_left_out(tmp_path):
    jsonl(tmp_path / "data.jsonl", topics())
    with pytest.raises(DataError, match="'missing'"):
        run(tmp_path, ROWS, task=Task(type="classify", labels=("card", "loan", "missing")))
    made = run(tmp_path, ROWS, task=Task(type="classify", labels=("loan", "card")))
    assert read_labels(made) == ("loan", "card")
    assert Counter(d.reason for d in read_dropped(made)) == {"unknown-label": 20}


def test_a_long_near_copy_of_a_test_text_is_not_trained_on_and_a_short_paraphrase_is(tmp_path):
    jsonl(tmp_path / "data.jsonl", [
        *topics(), {"text": LONG + " today", "label": "card", "split": "test"}, {"text": LONG, "label": "card"},
        {"text": "where is my new card", "label": "card", "split": "test"},
        {"text": "where is my new cards", "label": "card"}])
    made = run(tmp_path, ROWS)
    kept = {e.input for e in read_examples(made)}
    assert LONG not in kept and LONG + " today" in kept and "where is my new cards" in kept
    assert {d.reason for d in read_dropped(made)} == {"leak-runs"}


def test_rows_without_a_label_are_kept_for_training_and_never_counted_as_labelled(tmp_path):
    jsonl(tmp_path / "data.jsonl", [*topics(), {"text": "no idea", "label": ""}, {"text": "none", "label": None},
                                    {"text": "held", "label": None, "split": "test"},
                                    {"text": "message 3 about the card", "label": None}])
    made = run(tmp_path, ROWS)
    free = [e for e in read_examples(made) if "unlabelled" in e.tags]
    assert {e.input for e in free} == {"no idea", "none"} and all(e.split == "train" and e.labels is None for e in free)
    assert made.summary["unlabelled"] == 2 and made.summary["examples"] == 62
    assert Counter(d.reason for d in read_dropped(made)) == {"no-label": 1, "duplicate": 1}


def test_several_labels_need_a_multi_label_task(tmp_path):
    rows = [{"text": f"text {at}", "labels": ["a", "b"] if at % 2 else []} for at in range(40)]
    jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError, match="multi_label: true"):
        run(tmp_path, ROWS)
    made = run(tmp_path, ROWS, task=Task(type="classify", multi_label=True))
    assert {e.labels for e in read_examples(made)} == {("a", "b"), ()} and read_labels(made) == ("a", "b")
    assert json.loads((made.path / "labels.json").read_text())["multi_label"] is True


def test_makers_that_are_not_for_the_task_are_refused_with_the_right_ones(tmp_path):
    with pytest.raises(SpecError, match=r"'faq' does not read; name a maker that does.*rows.*text_folders"):
        prepare(None, Task(type="classify"), Prepare(), store=Store(tmp_path), root=tmp_path)
    jsonl(tmp_path / "data.jsonl", topics())
    with pytest.raises(SpecError, match=r"'rows' reads labelled data, but task\.type is 'assistant'"):
        run(tmp_path, ROWS, task="assistant")


@pytest.mark.parametrize("settings", [{"chunk": {"max_tokens": 100}}, {"max_examples_per_document": 5},
                                      {"split": {"by": "passage"}}])
def test_settings_for_documents_are_refused(tmp_path, settings):
    jsonl(tmp_path / "data.jsonl", topics())
    with pytest.raises(SpecError, match="prepare"):
        run(tmp_path, ROWS, **settings)


def test_one_class_only_and_no_test_rows_are_errors(tmp_path):
    jsonl(tmp_path / "data.jsonl", topics(30, ["same"]))
    with pytest.raises(DataError, match="same label"):
        run(tmp_path, ROWS)
    jsonl(tmp_path / "data.jsonl", topics())
    with pytest.raises(DataError, match="no test rows"):
        run(tmp_path, ROWS, split={"test": 0})


def test_embed_keeps_several_answers_of_a_query_together_and_a_test_query_out_of_training(tmp_path):
    rows = [{"query": f"question {at}", "positive": f"answer {at}", "negatives": ["wrong"]} for at in range(60)]
    rows += [{"query": "question 1", "positive": "another answer"}, {"query": "question 1", "positive": "answer 1"},
             {"query": "held", "positive": "x y", "split": "test"}, {"query": "held", "positive": "z"}]
    jsonl(tmp_path / "data.jsonl", rows)
    made = run(tmp_path, ROWS, task="embed")
    two = [e for e in read_examples(made) if e.input == "question 1"]
    assert len(two) == 2 and len({e.split for e in two}) == 1
    assert Counter(d.reason for d in read_dropped(made)) == {"duplicate": 1, "leak-query": 1}
    assert read_labels(made) == () and made.summary["labels"] == 0


@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data")
def test_banking77_keeps_nearly_every_row_and_is_quick(tmp_path):
    import time

    began = time.process_time()
    made = run(DATA.resolve(), {"kind": "rows", "path": "banking77/train.csv"},
               {"kind": "rows", "path": "banking77/test.csv", "split": "test"}, store=tmp_path)
    assert time.process_time() - began < 15
    assert made.summary["labels"] == 77 and made.summary["test"] >= 3070 and made.summary["dropped"] < 100
    assert made.summary["train"] + made.summary["validation"] > 9900


def outside(number, **more):
    return [{"text": f"question {at} on something else", "label": "oos", **more} for at in range(number)]


def test_rows_of_no_class_are_held_out_and_counted_apart(tmp_path):
    jsonl(tmp_path / "data.jsonl", [*topics(), *outside(40)])
    made = run(tmp_path, {**ROWS, "out_of_scope": ["oos"]})
    found = [e for e in read_examples(made) if "out-of-scope" in e.tags]
    assert read_labels(made) == ("card", "fraud", "loan") and len(found) == made.summary["out_of_scope"] == 40
    assert made.summary["train"] + made.summary["validation"] + made.summary["test"] == 60
    counts = Counter(e.split for e in found)
    assert not counts["train"] and counts["test"] > 10 and counts["validation"] > 5
    assert all(e.labels == () for e in found)
    card = json.loads((made.path / "card.json").read_text())
    assert card["out_of_scope"] == {"train": 0, "validation": counts["validation"], "test": counts["test"]}
    assert "40 that belong to none of the classes" in (made.path / "card.html").read_text()
    assert not any("none of the classes" in warning for warning in card["warnings"])


def test_the_datas_own_split_of_rows_of_no_class_is_kept_and_told_where_it_wastes_them(tmp_path):
    jsonl(tmp_path / "data.jsonl", [*topics(), *outside(7, split="train"), {"text": "an empty list", "label": []}])
    made = run(tmp_path, {**ROWS, "out_of_scope": ["oos"]})
    found = [e for e in read_examples(made) if "out-of-scope" in e.tags]
    assert Counter(e.split for e in found if e.input != "an empty list") == {"train": 7}
    assert len(found) == 8 and made.summary["test"] > 5  # they do not keep other rows from being split
    told = json.loads((made.path / "card.json").read_text())["warnings"]
    assert any("7 rows of none of the classes are for training" in warning for warning in told)


def test_two_makers_of_files_named_after_splits_keep_them(tmp_path):
    rows = topics(80)
    for name, part in (("train.jsonl", rows[:50]), ("test.jsonl", rows[50:])):
        jsonl(tmp_path / "data" / name, part)
    two = run(tmp_path, *({"kind": "rows", "path": f"data/{name}.jsonl"} for name in ("train", "test")))
    one = run(tmp_path, {"kind": "rows", "path": "data"})
    asked = {row["text"] for row in rows[50:]}
    for made in (one, two):
        assert {e.input for e in read_examples(made, "test")} == asked and made.summary["validation"] > 0
    assert one.summary["test_hash"] == two.summary["test_hash"]
    with pytest.raises(DataError, match=r"no train rows: 30 labelled rows, all of them for test.*named after a split"):
        run(tmp_path, {"kind": "rows", "path": "data/test.jsonl"})


def test_tagged_texts_that_differ_in_case_only_stay_on_one_side(tmp_path):
    rows = [{"text": f"pay item {at} on Monday", "spans": [{"start": 0, "end": 3, "label": "X"}]} for at in range(30)]
    one = {"text": "Pay within 30 days.", "spans": [{"start": 0, "end": 3, "label": "X"}]}
    jsonl(tmp_path / "data.jsonl", [*rows, {**one, "split": "test"},
                                    {**one, "text": "PAY within 30 days", "split": "train"},
                                    {"text": "!!", "spans": [], "split": "test"}, {"text": "??", "spans": []}])
    made = run(tmp_path, ROWS, task="tag")
    assert [d.reason for d in read_dropped(made)] == ["leak-same"]
    assert {"Pay within 30 days.", "!!", "??"} <= {e.input for e in read_examples(made)}
