"""Self-training: it helps where unlabelled rows are of the same kind, and is vetoed where they are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_kit import DATA, TOPICS, example, topics, trained

from luthier.errors import DataError, SpecError
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels
from luthier.train.strategies.selftrain import SelfTrain, balanced


def test_the_most_confident_rows_of_every_class_are_taken_and_as_many_of_each():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet([8, 1, 1], size=300)  # nearly all rows are answered with class 0
    places = balanced(chances, 0.2)
    counts = np.bincount(chances[places].argmax(1), minlength=3)
    answered = np.bincount(chances.argmax(1), minlength=3)
    assert counts.tolist() == np.minimum(answered, 20).tolist()
    of_first = np.flatnonzero(chances.argmax(1) == 0)
    assert chances[places][:, 0][chances[places].argmax(1) == 0].min() >= np.sort(chances[of_first, 0])[-20]


def test_rows_labelled_by_the_model_are_trained_on_and_their_lineage_is_kept(tmp_path):
    rows = topics(labelled=24, unlabelled=90)
    run = trained(tmp_path, rows, strategy=SelfTrain(rounds=2))
    summary = run.summary
    assert summary["guard"]["checked"] and summary["guard"]["n"] == 24
    kept = json.loads((run.path / "pseudo.json").read_text())
    if summary["guard"]["rounds"]:
        assert summary["train_examples"] == 24 + len(kept["rows"]) and len(kept["rows"]) == summary["pseudo_rows"] > 0
        known = {row.id: row for row in rows}
        for row in kept["rows"]:
            assert known[row["id"]].labels is None and known[row["id"]].origin.where == row["where"]
            assert row["label"] in TOPICS and 0 < row["confidence"] <= 1
    else:
        assert summary["train_examples"] == 24 and kept["rows"] == []
    assert trained(tmp_path, rows, strategy=SelfTrain(rounds=2)).id == run.id


def test_the_guard_counts_what_held_out_rows_say():
    from luthier.train.strategies._features import Space, guard

    space = Space(model=None, x=np.zeros((12, 2)), y=np.arange(12) % 2, weights=np.ones(12),  # type: ignore[arg-type]
                  u=np.zeros((3, 2)), groups=[""] * 12)

    def rounds(shares):
        def run(x, y, weights, probe):  # the probe's rows are alternately of class 0 and 1
            found = []
            for share in shares:
                chances = np.tile([0.6, 0.4], (len(probe), 1))
                chances[: round(share * len(probe))] = [0.4, 0.6]
                found.append(chances)
            return found

        return run

    same = guard(space, rounds([0.0, 0.0, 0.0]), folds=3, seed=0)
    assert same["rounds"] == 0 and same["fell_back"] and "do not help" in same["sentence"]
    unchecked = guard(space, rounds([0.0]), folds=3, seed=0, ask=False)
    assert unchecked["rounds"] is None and not unchecked["checked"]


def test_one_labelled_row_a_class_cannot_be_checked_and_the_report_says_so(tmp_path):
    run = trained(tmp_path, topics(labelled=3, unlabelled=60), strategy=SelfTrain(rounds=1))
    assert run.summary["guard"]["checked"] is False and "label a few more" in run.summary["guard"]["sentence"]
    assert run.summary["pseudo_rows"] > 0


def test_without_unlabelled_rows_or_classes_it_is_refused(tmp_path):
    with pytest.raises(DataError, match="the data has none"):
        trained(tmp_path, topics(labelled=30), strategy=SelfTrain())
    with pytest.raises(SpecError):
        Train(strategy=SelfTrain()).refuse_misfits(Task())


def starter_rows(labelled: int, seed: int):
    """snips: `labelled` rows a class, 160 rows without labels, 200 as test."""
    lines = [json.loads(line) for line in (DATA / "snips" / "intents.jsonl").read_text("utf-8").splitlines()]
    rng = np.random.default_rng(seed)
    lines = [lines[at] for at in rng.permutation(len(lines))]
    taken: dict[str, int] = {}
    rows, own, rest = [], [], []
    for number, line in enumerate(lines):
        count = taken[line["label"]] = taken.get(line["label"], 0) + 1
        if count <= labelled:
            rows.append(example(number, line["text"], line["label"]))
        elif len(own) < 160:
            own.append(example(number, line["text"], None))
        elif len(rest) < 200:
            rest.append(example(number, line["text"], line["label"], "test"))
    return rows, own, rest


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "snips" / "intents.jsonl").exists(), reason="shared/data/snips is not here")
def test_it_falls_back_to_supervised_on_rows_of_another_kind_and_not_on_its_own(tmp_path):
    rows, own, rest = starter_rows(4, seed=1)
    labels = sorted({row.labels[0] for row in rows if row.labels})
    rng = np.random.default_rng(0)
    alien = [example(10_000 + n, " ".join("".join(rng.choice([*"bcdfgklmnprstvwz"], 6)) for _ in range(8)), None)
             for n in range(160)]

    def accuracy(run) -> float:
        model = open_tuned_labels(run)
        from luthier.adapt.predict import logits

        asked = model.rows(rest)
        return float(np.mean(logits(model, asked).argmax(1) == [row.target for row in asked]))

    settings = {"model": "starter:encoder", "labels": labels, "epochs": 3}
    alone = accuracy(trained(tmp_path, [*rows, *rest], **settings))
    helped = trained(tmp_path, [*rows, *own, *rest], strategy=SelfTrain(), **settings)
    harmed = trained(tmp_path, [*rows, *alien, *rest], strategy=SelfTrain(), **settings)
    assert harmed.summary["guard"]["fell_back"] and "do not help" in harmed.summary["guard"]["sentence"]
    assert accuracy(harmed) == pytest.approx(alone, abs=0.01)
    assert accuracy(helped) >= alone
