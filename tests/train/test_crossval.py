"""Folds keep documents together and labels spread; every row is judged once by a model that has not seen it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_kit import LABELS, Bench, Killed, example, rows, same, weights

from luthier.errors import DataError
from luthier.prepare.base import TOGETHER
from luthier.testing import check_strategy
from luthier.train.labelled.fit import fit_once
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies._folds import ALWAYS, assign, fit_folds, mean_and_interval
from luthier.train.strategies.crossval import CrossVal
from luthier.types import Origin


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("crossval"))


HEAD = {"plan": HeadOnly(), "epochs": 3, "verify_resume": False}


def test_the_spec_keeps_the_laws() -> None:
    check_strategy(CrossVal(folds=3, final="ensemble"))


def test_folds_are_even_and_every_label_has_its_share() -> None:
    labels = ["ant"] * 50 + ["bee"] * 20 + ["cat"] * 7
    found = assign([example(at, label, f"t{at}") for at, label in enumerate(labels)], 5, seed=0)
    assert sorted(Counter(found).values()) == [15, 15, 15, 16, 16]
    for label, low, high in (("ant", 10, 10), ("bee", 4, 4), ("cat", 1, 2)):
        counts = Counter(fold for fold, own in zip(found, labels) if own == label)
        assert low <= min(counts.values()) and max(counts.values()) <= high and len(counts) == 5
    assert found == assign([example(at, label, f"t{at}") for at, label in enumerate(labels)], 5, seed=0)
    assert found != assign([example(at, label, f"t{at}") for at, label in enumerate(labels)], 5, seed=1)


def test_rows_of_a_document_or_group_stay_together_also_through_each_other() -> None:
    rng = np.random.default_rng(0)
    examples = [example(at, LABELS[at % 3], f"t{at}", groups={TOGETHER: f"user={rng.integers(20)}"})
                for at in range(60)]
    examples = [dataclasses.replace(e, origin=dataclasses.replace(e.origin, documents=(f"d{at // 2}",)))
                for at, e in enumerate(examples[:20])] + examples[20:]
    found = assign(examples, 3, seed=0)
    for key in (lambda e: e.groups[TOGETHER], lambda e: e.origin.documents or e.id):
        homes: dict[Any, set[int]] = {}
        for one, fold in zip(examples, found):
            homes.setdefault(key(one), set()).add(fold)
        assert all(len(folds) == 1 for folds in homes.values())


def test_several_labels_are_spread_too() -> None:
    rng = np.random.default_rng(1)
    examples = [example(at, tuple(label for label, chance in zip(LABELS, (0.6, 0.3, 0.08)) if rng.random() < chance),
                        f"t{at}") for at in range(200)]
    found = assign(examples, 5, seed=0)
    for label in LABELS:
        counts = Counter(fold for e, fold in zip(examples, found) if label in (e.labels or ()))
        assert len(counts) == 5 and max(counts.values()) - min(counts.values()) <= 3


def test_a_label_of_one_document_is_never_held_out() -> None:
    examples = [*rows(30), *(example(100 + at, "dog", f"dog{at}", groups={TOGETHER: "one"}) for at in range(3))]
    found = assign(examples, 3, seed=0)
    assert found[30:] == [ALWAYS] * 3 and ALWAYS not in found[:30]


def test_too_few_documents_are_refused() -> None:
    one = Origin(maker="human", step="rows", documents=("same",))
    with pytest.raises(DataError, match="at least 3 documents"):
        assign([dataclasses.replace(e, origin=one) for e in rows(9)], 3, seed=0)


def test_no_fold_sees_its_own_rows_and_its_logits_are_its_models(bench: Bench) -> None:
    train, held = rows(30), rows(9, first=100, split="validation")
    done = fit_folds(fit_once, bench.job("folds", train, held, **HEAD), 3, with_validation=False)
    assert done.held == [*range(30)]
    for fold, job in enumerate(done.jobs):
        own = {e.id for e, at in zip(done.rows, done.folds) if at == fold}
        assert own and not own & {e.id for e in [*job.train, *job.validation]}
        assert len(job.train) + len(own) == 30
    from luthier.adapt import predict

    logits = done.logits()
    assert logits is not None
    for at in (0, 7, 29):
        model = done.fitted[done.folds[at]].model
        assert np.allclose(logits[at], predict.logits(model, model.rows([train[at]]))[0], atol=1e-5)


@pytest.mark.parametrize("final", ["refit", "best_fold", "ensemble"])
def test_a_final_model_comes_out_with_its_report(final: Any, bench: Bench) -> None:
    train, held = rows(30), rows(9, first=100, split="validation")
    job = bench.job(f"final-{final}", train, held, **HEAD)
    found = CrossVal(folds=3, final=final).run(fit_once, job)
    report, oof = found.artifacts["crossval.json"], found.artifacts["oof.json"]
    assert sorted(oof["ids"]) == sorted(e.id for e in train) and set(oof["folds"]) == {1, 2, 3}
    right = [oof["labels"][int(np.argmax(logits))] for logits in oof["logits"]]
    truth = {e.id: (e.labels or ("",))[0] for e in train}
    assert report["metric"] == "accuracy"
    assert report["value"] == pytest.approx(np.mean([truth[id] == said for id, said in zip(oof["ids"], right)]))
    assert report["low"] <= report["mean"] <= report["high"] and len(report["values"]) == 3
    assert found.value is not None and found.logits is not None and len(found.logits) == 9
    assert found.summary["validation"]["n"] == 9 and found.summary["gap"]["n_train"] == 30
    points = {p["point"]: p["state"] for p in json.loads((job.folder / "contract.json").read_text())}
    assert points[7] == "kept" and "violated" not in points.values() and len(points) >= 9
    if final == "refit":
        assert found.summary["train_examples"] == 30


def test_validation_rows_can_be_divided_too(bench: Bench) -> None:
    train, held = rows(24), rows(9, first=100, split="validation")
    found = CrossVal(folds=3, with_validation=True).run(fit_once, bench.job("with", train, held, **HEAD))
    assert found.artifacts["crossval.json"]["n"] == 33 and found.summary["train_examples"] == 33
    assert found.logits is None and found.value == found.artifacts["crossval.json"]["value"]
    assert found.summary["validation"]["how"] == "out of fold" and found.summary["gap"] is None


def test_a_finished_fold_is_not_trained_again_after_a_kill(bench: Bench) -> None:
    train, held = rows(30), rows(9, first=100, split="validation")
    settings = {"epochs": 1, "verify_resume": False, "checkpoint_every_s": 1e-9}
    whole = CrossVal(folds=3).run(fit_once, bench.job("undisturbed", train, held, **settings))
    job = bench.job("killed", train, held, **settings)
    started: list[str] = []

    def dies(one: Any) -> Any:
        started.append(one.note)
        if one.note == "fold 3 of 3":
            def watch(done: Any) -> None:
                if done.step == 3:
                    raise Killed

            one = one.but(watch=watch)
        return fit_once(one)

    with pytest.raises(Killed):
        CrossVal(folds=3).run(dies, job)
    steps: list[int] = []
    again = CrossVal(folds=3).run(fit_once, job.but(watch=lambda done: steps.append(done.step)))
    assert steps[0] == 3, "goes on inside the third fold"
    assert same(weights(whole), weights(again)) and again.artifacts == whole.artifacts
    assert all(file.is_file() for file in again.scratch)


def test_a_leak_stops_before_the_first_fold(bench: Bench) -> None:
    from luthier.errors import ContractError

    train = rows(12)
    copied = [dataclasses.replace(train[0], id="copy", split="validation")]
    with pytest.raises(ContractError, match="point 7"):
        CrossVal(folds=2).run(fit_once, bench.job("leak", train, copied, **HEAD))


def test_the_interval_is_nadeau_and_bengios() -> None:
    from scipy.stats import t

    values = [0.8, 0.9, 0.85, 0.95]
    found = mean_and_interval(values)
    assert found["mean"] == pytest.approx(0.875)
    assert found["high"] - found["mean"] == pytest.approx(
        t.ppf(0.975, 3) * np.sqrt(np.var(values, ddof=1) * (1 / 4 + 1 / 3)))


@pytest.mark.slow
def test_out_of_fold_value_is_near_the_test_value(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    train, test = rows(60, size=12), rows(90, first=500, size=12)
    found = CrossVal(folds=3).run(fit_once, bench.job("honest", train, (), **HEAD))
    from luthier.train.labelled.score import validate

    value, _, _ = validate(found.model, test, found.model.rows(test))
    assert abs(found.artifacts["crossval.json"]["value"] - value) < 0.12
