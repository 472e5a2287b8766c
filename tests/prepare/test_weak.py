"""Laws of weak labels in prepare: what gets a label, with what weight and origin; what is measured; what is asked; what
is refused."""

import json
import sys

import pytest

from luthier.errors import DataError, SpecError
from luthier.prepare.base import Prepare, read_examples
from luthier.prepare.weak.base import LABELERS, WEAK, WeakContext, WeakRow
from luthier.prepare.weak.figures import share
from luthier.queues import read_review
from luthier.spec import parse
from luthier.store import Store
from luthier.task import Task
from luthier.testing import check_spec
from tests.prepare.label_kit import jsonl, run

WORDS = {"card": "my card", "loan": "the loan", "fraud": "a stranger took money"}
RULES = {"kind": "rules", "rules": [
    {"label": "card", "any_of": ["card*"]}, {"label": "loan", "any_of": ["loan", "credit"]},
    {"label": "fraud", "pattern": "str.nger", "none_of": ["loan"]}]}
LABELS = tuple(WORDS)


def rows(human=60, waiting=60):
    """Rows whose text says their class, except that every tenth one says another class as well."""
    found = []
    for at in range(human + waiting):
        label = LABELS[at % 3]
        also = f" and {WORDS[LABELS[(at + 1) % 3]]}" if at % 10 == 0 else ""
        found.append({"text": f"message {at} about {WORDS[label]}{also}", "label": label if at < human else ""})
    return found


def weakly(tmp_path, *, data=None, labelers=(RULES,), task="classify", name="rows.jsonl", maker=None, **weak):
    jsonl(tmp_path / name, data if data is not None else rows())
    return run(tmp_path, {"kind": "rows", "path": name, **(maker or {})}, task=task,
               weak={"labelers": list(labelers), **weak})


def test_rows_without_a_label_get_one_with_its_probability_as_weight_and_their_origin(tmp_path):
    made = weakly(tmp_path)
    labelled = [one for one in read_examples(made) if WEAK in one.tags]
    assert made.summary["weak"] == len(labelled) >= 50 and made.summary["unlabelled"] == 60 - len(labelled)
    for one in labelled:
        number = int(str(one.input).split()[1])
        assert one.split == "train" and one.labels == (LABELS[number % 3],)
        assert 0.7 <= one.weight <= 1 and one.origin.maker == "rule" and one.origin.step.startswith("weak: ")
        assert one.origin.where == f"rows.jsonl:{number + 1}" and "→" in one.origin.evidence


def test_test_and_validation_rows_stay_human_and_the_same_call_gives_the_same(tmp_path):
    with_weak, without = weakly(tmp_path), run(tmp_path, {"kind": "rows", "path": "rows.jsonl"})
    for split in ("validation", "test"):
        assert read_examples(with_weak, split) == read_examples(without, split)
        assert all(one.origin.maker == "human" for one in read_examples(with_weak, split))
    again = weakly(tmp_path / "again")
    assert read_examples(again) == read_examples(with_weak)


def test_figures_are_what_counting_gives(tmp_path):
    made = weakly(tmp_path, min_probability=0)
    found = json.loads((made.path / "weak.json").read_text())
    waiting = [row["text"] for row in rows()[60:]]
    cards = [text for text in waiting if "card" in text]
    first = found["sources"][0]
    assert first["votes"] == len(cards) and first["coverage"] == pytest.approx(len(cards) / 60)
    both = sum("loan" in text or ("stranger" in text and "loan" not in text) for text in cards)
    assert first["overlaps"] == pytest.approx(both / 60) == first["conflicts"]
    human = [one for one in read_examples(made) if one.origin.maker == "human" and one.split != "test"]
    voted = [one for one in human if "card" in str(one.input)]
    right = sum(one.labels == ("card",) for one in voted)
    assert first["measured"]["n"] == len(voted) and first["measured"]["accuracy"] == pytest.approx(right / len(voted))
    assert first["measured"]["low"] < right / len(voted) < first["measured"]["high"]
    card = json.loads((made.path / "card.json").read_text())
    assert card["weak"]["sources"] == found["sources"] and share(first["measured"]).startswith("94% (n 16")
    assert "Weak labels" in (made.path / "card.html").read_text()


def test_rows_whose_sources_disagree_wait_for_a_person_and_a_decision_is_honoured(tmp_path):
    made = weakly(tmp_path, min_probability=0)
    items = [item for item in read_review(made.path) if item.queue == "labels"]
    doubtful = {f"rows.jsonl:{at + 1}" for at in range(60, 120) if at % 10 == 0}
    assert {item.where for item in items} <= doubtful and len(items) >= 4
    assert items[0].choices == ("card", "fraud", "loan") and len(items[0].notes["votes"]) == 2
    wrong = next(label for label in LABELS if label not in items[0].proposal)
    jsonl(tmp_path / "labels" / "decisions.jsonl", [{"id": items[0].id, "labels": [wrong]}])
    again = weakly(tmp_path, min_probability=0)
    decided = next(one for one in read_examples(again) if one.origin.where == items[0].where)
    assert decided.labels == (wrong,) and WEAK not in decided.tags and decided.origin.maker == "human"
    assert decided.weight == 1 and items[0].where not in {item.where for item in read_review(again.path)}


def test_a_label_that_everything_speaks_against_is_asked_about(tmp_path):
    data = rows(human=90, waiting=30)
    data[31]["label"] = "card"  # says loan
    made = weakly(tmp_path, data=data, maker={"split": None})
    asked = [item for item in read_review(made.path) if item.notes.get("given") == ["card"]]
    kept = next(one for one in read_examples(made) if one.origin.where == "rows.jsonl:32")
    assert [item.where for item in asked] == (["rows.jsonl:32"] if kept.split == "train" else [])
    if asked:
        assert asked[0].proposal == ["loan"] and kept.labels == ("card",)  # asked, not changed


def test_uncertain_rows_stay_without_a_label(tmp_path):
    strict = weakly(tmp_path, min_probability=0.999)
    loose = weakly(tmp_path, min_probability=0.0)
    assert strict.summary["weak"] < loose.summary["weak"] == 60


def test_rules_read_columns_places_and_lengths(tmp_path):
    context = WeakContext(rows=[WeakRow("1", "Pay my  Cards now", "data/a.csv:3", {"region": "North"}),
                                WeakRow("2", "cardigan", "data/b.csv:4", {"region": "south"})],
                          labels=("x",), descriptions={"x": "x"}, multi_label=False, root=tmp_path,
                          store=Store(tmp_path / "store"))
    for rule, expected in [({"any_of": ["my card*"]}, [1, 0]), ({"any_of": ["card"]}, [0, 0]),
                           ({"any_of": ["CARD*"]}, [1, 1]), ({"all_of": ["pay", "now"]}, [1, 0]),
                           ({"none_of": ["pay"]}, [0, 1]), ({"pattern": r"card(s|i)"}, [1, 1]),
                           ({"columns": {"region": "north"}}, [1, 0]), ({"columns": {"region": "*"}}, [1, 1]),
                           ({"where": "data/a*"}, [1, 0]), ({"max_words": 1}, [0, 1]), ({"min_words": 2}, [1, 0])]:
        labeler = LABELERS.parse({"kind": "rules", "rules": [{"label": "x", **rule}]})
        (source,) = labeler.vote(context)
        assert [len(vote) for vote in source.votes] == expected, rule
    with pytest.raises(DataError, match=r"asks for the column 'country'.*region.*groups"):
        LABELERS.parse({"kind": "rules", "rules": [{"label": "x", "columns": {"country": "de"}}]}).vote(context)


def test_a_rule_reads_the_columns_that_the_maker_keeps(tmp_path):
    data = [{**row, "desk": LABELS[at % 3]} for at, row in enumerate(rows())]
    labelers = [{"kind": "rules", "rules": [{"label": label, "columns": {"desk": label}} for label in LABELS]}]
    made = weakly(tmp_path, data=data, labelers=labelers, maker={"groups": ["desk"]})
    assert made.summary["weak"] == 60


def test_a_users_own_function_votes_and_its_edit_makes_the_labels_anew(tmp_path):
    code = ("from luthier.prepare.weak.base import RowLabeler\n\n\nclass Own(RowLabeler):\n    "
            "def label(self, text, columns):\n        return {0}\n")
    (tmp_path / "own_weak.py").write_text(code.format("'card' if 'card' in text else None"))
    made = weakly(tmp_path, labelers=[{"kind": "own_weak:Own"}], min_probability=0)
    assert made.summary["weak"] == sum("card" in row["text"] for row in rows()[60:])
    assert "own_weak:Own → card" in next(one for one in read_examples(made) if WEAK in one.tags).origin.evidence
    (tmp_path / "own_weak.py").write_text(code.format("'crad'"))
    del sys.modules["luthier_local_own_weak"]
    with pytest.raises(DataError, match=r"'own_weak:Own' voted for 'crad'.*did you mean 'card'"):
        weakly(tmp_path, labelers=[{"kind": "own_weak:Own"}], min_probability=0)


def test_several_classes_a_row_are_decided_class_by_class(tmp_path):
    data = [{"text": f"{at} " + " ".join(WORDS[label] for label in chosen), "label": list(chosen) if at < 60 else None}
            for at in range(120) for chosen in [tuple(sorted({LABELS[at % 3], LABELS[(at // 3) % 3]}))]]
    rules = {"kind": "rules", "rules": [{"label": label, "any_of": [words]} for label, words in WORDS.items()]}
    function = ("from luthier.prepare.weak.base import RowLabeler\n\n\nclass Every(RowLabeler):\n    "
                f"def label(self, text, columns):\n        return [k for k, v in {WORDS!r}.items() if v in text]\n")
    (tmp_path / "every_weak.py").write_text(function)
    made = weakly(tmp_path, data=data, labelers=[{"kind": "every_weak:Every"}, rules],
                  task=Task(type="classify", multi_label=True, metric="micro_f1"))
    labelled = [one for one in read_examples(made) if WEAK in one.tags]
    right = sum(set(one.labels) == {label for label, words in WORDS.items() if words in str(one.input)}
                for one in labelled)
    assert len(labelled) > 40 and right / len(labelled) > 0.9


def test_without_a_human_validation_row_weak_rows_stand_in_and_it_is_said(tmp_path):
    jsonl(tmp_path / "test.jsonl", [{"text": f"exam {at} on {WORDS[LABELS[at % 3]]}", "label": LABELS[at % 3]}
                                    for at in range(12)])
    jsonl(tmp_path / "train.jsonl", [{"text": row["text"], "label": ""} for row in rows(0, 90)])
    made = run(tmp_path, {"kind": "rows", "path": "train.jsonl"}, {"kind": "rows", "path": "test.jsonl"},
               task=Task(type="classify", labels=LABELS, metric="accuracy"),
               weak={"labelers": [RULES], "min_probability": 0.5}, split={"validation": 0.2})
    held = read_examples(made, "validation")
    assert 5 <= len(held) <= 40 and all(WEAK in one.tags for one in held)
    assert {one.origin.maker for one in read_examples(made, "test")} == {"human"}
    warnings = json.loads((made.path / "card.json").read_text())["warnings"]
    assert any("stand in for them" in told for told in warnings)
    assert any("Only 0 rows that people labelled" in told for told in warnings)


def test_majority_counts_votes(tmp_path):
    made = weakly(tmp_path, combine="majority", min_probability=0.6)
    texts = {str(one.input): one for one in read_examples(made) if WEAK in one.tags}
    two = sum("card" in row["text"] and ("loan" in row["text"] or "stranger" in row["text"]) for row in rows()[60:])
    assert all(one.weight == 1 for one in texts.values()) and len(texts) == 60 - two  # two that differ are a half


@pytest.mark.parametrize(("weak", "task", "error", "said"), [
    ({"labelers": [{"kind": "rules", "rules": [{"label": "crad", "any_of": ["x"]}]}]}, "classify", DataError,
     r"'crad', which no labelled row has; did you mean 'card'"),
    ({"labelers": [RULES]}, Task(type="classify", labels=("card", "loan"), metric="accuracy"), SpecError,
     r"'fraud', which is not in task.labels"),
    ({"labelers": [{"kind": "neighbours"}]}, "embed", SpecError, r"task classify.*not the task 'embed'"),
    ({"descriptions": {"card": "a card"}}, "classify", SpecError, r"descriptions is set, but .* nothing"),
])
def test_what_cannot_be_honoured_is_refused(tmp_path, weak, task, error, said):
    jsonl(tmp_path / "rows.jsonl", rows() if task != "embed" else [{"query": "a", "positive": "b"}] * 3)
    with pytest.raises(error, match=said):
        run(tmp_path, {"kind": "rows", "path": "rows.jsonl"}, task=task, weak=weak)


@pytest.mark.parametrize(("rule", "said"), [
    ({"label": "card"}, "without a condition"), ({"label": "card", "pattern": "("}, "not a regular expression"),
    ({"label": "card", "any_of": [" * "]}, "empty word"), ({"label": "card", "any": ["x"]}, "did you mean 'any_of'"),
    ({"label": [], "any_of": ["x"]}, "needs the label")])
def test_a_rule_that_says_nothing_is_refused_with_its_place(rule, said):
    with pytest.raises(SpecError, match=rf"weak\.labelers\.0\.rules\.0.*{said}"):
        parse(Prepare, {"weak": {"labelers": [{"kind": "rules", "rules": [rule]}]}})


@pytest.mark.parametrize("labeler", [
    RULES, {"kind": "neighbours", "k": 5}, {"kind": "descriptions"}, {"kind": "zero_shot", "max_rows": 3},
    {"kind": "teacher", "base_url": "http://localhost:1/v1", "model": "m"}], ids=lambda one: one["kind"])
def test_every_labeler_passes_the_kit(labeler):
    check_spec(LABELERS, LABELERS.parse(labeler))
