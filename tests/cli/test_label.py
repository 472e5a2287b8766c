"""`luthier label`: what is proposed, what a person says, and that the next run honours it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))

from data_kit import TOPICS, encoder, topics  # type: ignore[import-not-found]

from luthier.cli import app
from luthier.prepare.base import Prepare, prepare, read_dropped, read_examples
from luthier.project import Project
from luthier.project.label import Proposal, ask, propose
from luthier.spec import parse
from luthier.store import Store
from luthier.task import Task
from luthier.train.labelled.active import choose, uncertainty

runner = CliRunner()


def write_data(file: Path, *, labelled: int = 60, unlabelled: int = 40) -> None:
    rows = topics(labelled=labelled, unlabelled=unlabelled, validation=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("text,label\n" + "".join(f"{row.input},{(row.labels or ('',))[0]}\n" for row in rows), "utf-8")


def prepared(root: Path):
    spec = parse(Prepare, {"makers": [{"kind": "rows", "path": "data/rows.csv"}]}, local=root)
    return prepare(None, Task(type="classify"), spec, store=Store(root / "store"), root=root)


def decide(root: Path, *rows: object, name: str = "decisions.jsonl") -> None:
    (root / "labels").mkdir(exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (root / "labels" / name).write_text(text, "utf-8")


def test_decisions_complete_and_correct_rows_by_id_place_or_text_and_the_later_one_counts(tmp_path):
    write_data(tmp_path / "data" / "rows.csv")
    before = prepared(tmp_path)
    open_rows = [row for row in read_examples(before) if not row.labelled]
    known = next(row for row in read_examples(before) if row.labels == ("card",) and row.split == "train")
    decide(tmp_path, {"id": open_rows[0].id, "labels": ["loan"]},
           {"where": open_rows[1].origin.where, "labels": "fraud"},
           {"text": str(open_rows[2].input).upper(), "labels": ["card"]}, {"id": known.id, "labels": ["loan"]})
    decide(tmp_path, {"id": open_rows[0].id, "labels": ["card"]}, name="decisions-2.jsonl")
    after = prepared(tmp_path)
    assert after.id != before.id and prepared(tmp_path).id == after.id
    found = {row.origin.where: row for row in read_examples(after)}
    assert [found[row.origin.where].labels for row in open_rows[:3]] == [("card",), ("fraud",), ("card",)]
    assert found[known.origin.where].labels == ("loan",) and found[known.origin.where].split == known.split
    assert all(found[row.origin.where].split == "train" for row in open_rows[:3])
    assert after.summary["unlabelled"] == before.summary["unlabelled"] - 3
    assert after.summary["test_hash"] == before.summary["test_hash"]
    assert found[open_rows[0].origin.where].origin.evidence == "labels/decisions-2.jsonl:1"


def test_decisions_that_fit_no_row_are_counted_with_their_reason(tmp_path):
    write_data(tmp_path / "data" / "rows.csv")
    where = next(row for row in read_examples(prepared(tmp_path)) if not row.labelled).origin.where
    decide(tmp_path, {"id": "feedbeef", "labels": ["card"]}, "no json", {"labels": ["card"]}, {"id": "a", "labels": 3},
           {"where": where, "text": "another text than this row has now", "labels": ["card"]})
    gone = {drop.item: drop.reason for drop in read_dropped(prepared(tmp_path)) if drop.step == "decisions"}
    assert gone == {f"labels/decisions.jsonl:{line}": reason for line, reason in [
        (1, "decision-without-row"), (2, "unreadable-decision"), (3, "unreadable-decision"), (4, "unreadable-decision"),
        (5, "decision-without-row")]}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_data(root / "data" / "rows.csv", labelled=90)
    encoder(root / "encoder")
    (root / "luthier.yaml").write_text(
        "name: topics\ntask: {type: classify}\ningest: {sources: []}\n"
        "prepare: {makers: [{kind: rows, path: data/rows.csv}]}\nadapt: {model: ./encoder}\n"
        "train: {plan: head, epochs: 1, verify_resume: false}\n", "utf-8")
    for _ in Project.open(root).run(to="train"):
        pass
    return root


def test_the_command_proposes_uncertain_rows_and_takes_decided_ones_off_the_list(project):
    result = runner.invoke(app, ["label", "-C", str(project), "-n", "5", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    rows = [json.loads(line) for line in (project / "labels" / "proposed.jsonl").read_text().splitlines()]
    assert told["rows"] == rows and len(rows) == 5 and told["waiting"] == 40
    for row in rows:
        assert row["labels"] is None and row["where"].startswith("data/rows.csv:") and row["proposed"] in TOPICS
        assert row["probability"] == max(chance for _, chance in row["top"]) and row["why"]
    decide(project, {"id": rows[0]["id"], "labels": ["card"]})
    again = propose(Project.open(project), count=40)
    assert again.waiting == 39 and rows[0]["id"] not in {row["id"] for row in again.rows}
    (project / "labels" / "decisions.jsonl").unlink()


def test_without_a_terminal_it_only_writes_the_proposal(project):
    result = runner.invoke(app, ["label", "-C", str(project), "--ask", "-n", "3"])
    assert result.exit_code == 0 and "no terminal" in result.stderr and "3 of 40 rows" in result.stdout
    assert not (project / "labels" / "decisions.jsonl").exists()


def test_before_a_training_there_is_nothing_to_ask(tmp_path):
    write_data(tmp_path / "data" / "rows.csv")
    (tmp_path / "luthier.yaml").write_text("name: x\ntask: {type: classify}\n"
                                           "prepare: {makers: [{kind: rows, path: data/rows.csv}]}\n", "utf-8")
    result = runner.invoke(app, ["label", "-C", str(tmp_path)])
    assert result.exit_code != 0 and "has not run" in str(result.exception)


def proposal(tmp_path: Path, *, multi_label: bool = False) -> Proposal:
    rows = [{"id": f"i{n}", "where": f"rows.csv:{n}", "text": f"text {n}", "labels": None, "proposed": "card",
             "probability": 0.5, "top": [["card", 0.5], ["loan", 0.4]], "why": ""} for n in range(4)]
    return Proposal(tmp_path / "proposed.jsonl", rows, ("card", "fraud", "loan"), multi_label, 4)


def test_keys_choose_name_skip_and_quit_and_every_decision_is_kept_at_once(tmp_path):
    keys, said = iter(["2", "s", "9", "o", "o", "q"]), []
    names = iter(["nothing known", "fraud"])
    assert ask(proposal(tmp_path), key=lambda: next(keys), line=lambda what: next(names), say=said.append) == 2
    written = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert [(row["id"], row["labels"]) for row in written] == [("i0", ["loan"]), ("i2", ["fraud"])]
    assert any("'nothing known' is none of: card, fraud, loan" in line for line in said)


def test_several_labels_are_chosen_until_enter(tmp_path):
    keys = iter(["1", "2", "\r", "\r", "q"])
    assert ask(proposal(tmp_path, multi_label=True), key=lambda: next(keys), line=str, say=lambda text: None) == 2
    written = [json.loads(line)["labels"] for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert written == [["card", "loan"], []]


def test_uncertain_rows_that_differ_are_chosen_and_repeats_are_not():
    chances = np.array([[0.5, 0.5], [0.5, 0.5], [0.51, 0.49], [0.99, 0.01], [0.6, 0.4]])
    features = np.array([[1, 0], [1, 0.001], [0, 1], [-1, 0], [0.7, 0.7]], dtype=np.float32)
    assert uncertainty(chances, multi_label=False).tolist() == pytest.approx([1, 1, 0.98, 0.02, 0.8])
    picks = choose(chances, features, 3, seed=0)
    places = [pick.at for pick in picks]
    assert not {0, 1} <= set(places) and len(places) == 3
    assert [pick.uncertainty for pick in picks] == sorted((pick.uncertainty for pick in picks), reverse=True)
    assert len(choose(chances, features, 50, seed=0)) == 4
    assert uncertainty(np.array([[0.5, 0.9]]), multi_label=True).tolist() == [1.0]


def test_a_hundred_chosen_labels_teach_more_than_a_hundred_random_ones():
    """Simulated: ten classes of unequal size, an oracle answers; five rounds of 20, a logistic regression learns."""
    from sklearn.linear_model import LogisticRegression

    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, 11)
        centres = rng.normal(size=(10, 24)) * 0.75
        y = rng.choice(10, size=2600, p=share / share.sum())
        x = (centres[y] + rng.normal(size=(2600, 24))).astype(np.float32)
        pool, test = np.arange(1600), np.arange(1600, 2600)
        start = np.concatenate([rng.permutation(np.flatnonzero(y[pool] == k))[:2] for k in range(10)])

        def learn(taken, x=x, y=y):
            return LogisticRegression(max_iter=200).fit(x[taken], y[taken])

        taken = list(start)
        for _ in range(5):
            left = np.setdiff1d(pool, taken)
            picks = choose(learn(taken).predict_proba(x[left]), x[left], 20, seed=seed)
            taken += [int(left[pick.at]) for pick in picks]
        assert len(set(taken)) == 120
        drawn = [[*start, *rng.permutation(np.setdiff1d(pool, start))[:100]] for _ in range(3)]
        random = np.mean([learn(some).score(x[test], y[test]) for some in drawn])
        gains.append(learn(taken).score(x[test], y[test]) - random)
    assert np.mean(gains) > 0.01 and sum(gain > 0 for gain in gains) >= 3
