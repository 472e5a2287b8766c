"""Label noise: confident learning agrees with cleanlab, and planted errors are found and stop hurting."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.train.labelled.noise import confident_joint, out_of_fold, split_folds, suspects


def noisy(seed: int, rows: int = 400, classes: int = 6, skew: float = 1.0):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, skew))
    true = rng.choice(classes, size=rows, p=share)
    labels = np.where(rng.random(rows) < 0.2, rng.integers(0, classes, rows), true)
    labels[:classes] = np.arange(classes)
    logits = rng.normal(size=(rows, classes)) + 2.0 * np.eye(classes)[true]
    chances = np.exp(logits)
    return labels, chances / chances.sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(6))
def test_the_confident_joint_is_cleanlabs(seed):
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is a reference for development")
    labels, chances = noisy(seed, skew=0.5 if seed % 2 else 5.0)
    assert np.array_equal(confident_joint(labels, chances), count.compute_confident_joint(labels, chances))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["noise_rate", "confident"])
def test_the_suspects_are_cleanlabs(seed, method):
    reference = pytest.importorskip("cleanlab.filter", reason="cleanlab is a reference for development")
    labels, chances = noisy(seed, skew=0.5 if seed % 2 else 5.0)
    name = {"noise_rate": "prune_by_noise_rate", "confident": "confident_learning"}[method]
    theirs = reference.find_label_issues(labels, chances, filter_by=name, n_jobs=1,
                                         return_indices_ranked_by="self_confidence")
    assert suspects(labels, chances, method=method).tolist() == list(theirs)
    assert len(theirs) > 10


def test_folds_hold_every_row_once_spread_classes_and_keep_groups_together():
    targets = np.repeat(np.arange(4), 10)
    groups = [f"g{at // 2}" for at in range(40)]
    parts = split_folds(targets, folds=5, seed=1, groups=groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    for part in parts:
        assert np.bincount(targets[part], minlength=4).tolist() == [2, 2, 2, 2]
        assert all((at ^ 1) in part for at in part)


def test_out_of_fold_probabilities_do_not_know_the_rows_own_label():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(120, 20)).astype(np.float32), rng.integers(0, 2, 120)
    chances = out_of_fold(features, targets, np.ones(120), num_outputs=2, folds=5, seed=0)
    assert np.allclose(chances.sum(1), 1)
    assert 0.35 < (chances.argmax(1) == targets).mean() < 0.65  # labels are coin tosses


def test_planted_errors_are_found():
    rng = np.random.default_rng(3)
    true = np.arange(600) % 5
    features = (rng.normal(size=(600, 16)) + 4.5 * np.eye(5, 16)[true]).astype(np.float32)
    wrong = rng.choice(600, 60, replace=False)
    labels = true.copy()
    labels[wrong] = (true[wrong] + rng.integers(1, 5, 60)) % 5
    found = suspects(labels, out_of_fold(features, labels, np.ones(600), num_outputs=5, folds=5, seed=0))
    hits = len(set(found.tolist()) & set(wrong.tolist()))
    assert hits / 60 > 0.8 and hits / len(found) > 0.8


def planted(seed: int = 0, share: float = 0.1, most: int = 400):
    """snips with `share` of the train labels replaced by another class's."""
    import json

    from data_kit import DATA, example

    from luthier.prepare.text import normalise

    file = DATA / "snips" / "intents.jsonl"
    if not file.exists():
        pytest.skip("shared/data/snips is not here")
    rng = np.random.default_rng(seed)
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    lines = [*{" ".join(normalise(line["text"]).split()[:6]): line for line in lines}.values()]  # no near repeats
    lines = [lines[at] for at in rng.permutation(len(lines))[: most + 150]]
    labels = sorted({line["label"] for line in lines})
    wrong = set(rng.permutation(most)[: round(share * most)].tolist())
    rows = []
    for at, line in enumerate(lines):
        label = line["label"]
        if at in wrong:
            label = labels[(labels.index(label) + int(rng.integers(1, len(labels)))) % len(labels)]
        rows.append(example(at, line["text"], label, "train" if at < most else "validation"))
    return rows, labels, {f"r{at}" for at in wrong}


@pytest.mark.slow
def test_the_strategy_finds_planted_errors_shows_them_with_their_lines_and_validation_rises(tmp_path):
    import json

    from data_kit import trained

    from luthier.train.strategies.clean import Clean

    rows, labels, wrong = planted()
    settings = {"model": "starter:encoder", "labels": labels, "epochs": 3}
    plain = trained(tmp_path, rows, **settings)
    cleaned = trained(tmp_path, rows, strategy=Clean(), **settings)
    told = json.loads((cleaned.path / "suspects.json").read_text())["rows"]
    found = {row["id"] for row in told}
    assert len(found & wrong) / len(wrong) > 0.65
    assert len(found & wrong) / len(found) > 0.7
    assert all(row["where"].startswith("data.csv:") and row["proposed"] != row["labels"] for row in told)
    assert cleaned.summary["train_examples"] == 400 - len(found) and cleaned.summary["suspects"] == len(found)
    assert cleaned.summary["validation"]["value"] >= plain.summary["validation"]["value"]


def test_suspects_can_be_weighed_less_and_the_last_row_of_a_class_stays(tmp_path):
    from data_kit import topics, trained

    from luthier.train.strategies.clean import Clean, _spared

    run = trained(tmp_path, topics(labelled=60), strategy=Clean(weight=0.2, most=1.0))
    assert run.summary["train_examples"] == 60
    assert _spared(np.array([0, 0, 1, 1]), [3, 2, 0]) == {2}


def test_where_several_labels_may_apply_the_wrong_one_is_turned_over():
    from types import SimpleNamespace

    from luthier.train.strategies._features import Space
    from luthier.train.strategies.clean import Clean

    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, (400, 3))
    x = (rng.normal(size=(400, 8)) * 0.4 + true @ rng.normal(size=(3, 8)) * 2).astype(np.float32)
    wrong = rng.choice(400, 30, replace=False)
    y = true.astype(np.float32)
    y[wrong, 1] = 1 - y[wrong, 1]
    model = SimpleNamespace(labels=("a", "b", "c"), task=SimpleNamespace(multi_label=True))
    space = Space(model=model, x=x, y=y, weights=np.ones(400), u=x[:0], groups=[""] * 400)  # type: ignore[arg-type]
    found = {at: proposed for at, proposed, *_ in Clean().find(space, seed=0)}
    assert len(set(found) & set(wrong.tolist())) >= 24 and len(found) <= 45
    right = [found[at] == [name for name, is_so in zip("abc", true[at]) if is_so] for at in wrong if at in found]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(("trust", "suspected"), [(True, [1]), (False, [0, 1])])
def test_a_row_that_a_person_decided_is_not_suspected_again(monkeypatch, trust, suspected):
    from dataclasses import dataclass, field
    from types import SimpleNamespace

    from luthier.prepare.decisions import DECIDED
    from luthier.progress import Silent
    from luthier.train.strategies.clean import Clean
    from luthier.types import Example, Origin

    @dataclass
    class Fitted:
        summary: dict = field(default_factory=dict)
        artifacts: dict = field(default_factory=dict)

    rows = [Example(id=str(at), input="t", target=None, labels=("a",), tags=(DECIDED,) if at == 0 else (),
                    origin=Origin(maker="human", step="rows", where=f"d.csv:{at}")) for at in range(4)]
    monkeypatch.setattr("luthier.train.strategies._features.space_of",
                        lambda job, **_: SimpleNamespace(y=np.zeros(4, dtype=int)))
    monkeypatch.setattr(Clean, "find", lambda self, space, seed: [(at, ["b"], 0.9, 0.1) for at in (0, 1)])
    job = SimpleNamespace(train=rows, seed=0, progress=Silent(), but=lambda train: [int(row.id) for row in train])
    kept: list = []
    fitted = Clean(most=1.0, trust_decided=trust).run(lambda left: kept.extend(left) or Fitted(), job)
    assert [int(row["id"]) for row in fitted.artifacts["suspects.json"]["rows"]] == suspected
    assert kept == [at for at in range(4) if at not in suspected]
