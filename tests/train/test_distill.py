"""One model learns what an ensemble says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fit_kit import Bench, example, rows, same, weights

from luthier.adapt import predict
from luthier.adapt.ensemble import EnsembleNetwork
from luthier.errors import SpecError
from luthier.testing import check_strategy
from luthier.train.labelled.base import Teacher
from luthier.train.labelled.fit import fit_once
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.distill import Distill
from luthier.train.strategies.ensemble import Ensemble

HEAD: dict[str, Any] = {"plan": HeadOnly(), "epochs": 6, "verify_resume": False}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("distill"))


@pytest.fixture(scope="module")
def train() -> list[Any]:
    return rows(30)


@pytest.fixture(scope="module")
def held() -> list[Any]:
    return rows(15, first=100, split="validation")


def test_the_spec_keeps_the_laws() -> None:
    check_strategy(Distill(teacher=Ensemble(members="seeds", count=3), temperature=3.0))


def test_an_ensemble_becomes_one_model_that_agrees_with_it(bench: Bench, train: Any, held: Any) -> None:
    found = Ensemble(count=3, distill=True).run(fit_once, bench.job("one", train, held, **HEAD))
    report = found.artifacts["distill.json"]
    assert not isinstance(found.model.module, EnsembleNetwork)
    assert report["agreement"] >= 0.8 and report["rows"] == 30 and report["teacher"]["members"] == "folds"
    assert found.summary["gap"]["n_train"] == 30, "the gap is measured on the rows' own labels"
    assert "ensemble.json" in found.artifacts


def test_with_alpha_1_the_teacher_counts_nothing(bench: Bench, train: Any, held: Any) -> None:
    plain = fit_once(bench.job("plain", train, held, **HEAD))
    nonsense = Teacher(logits={e.id: np.array([9, -9, 0], dtype=np.float32) for e in train}, alpha=1.0)
    taught = fit_once(bench.job("alpha", train, held, **HEAD).but(teacher=nonsense))
    assert same(weights(plain), weights(taught))


def test_with_alpha_0_the_labels_count_nothing(bench: Bench, train: Any) -> None:
    """A teacher that calls everything the first class teaches that, whatever the labels say."""
    teacher = Teacher(logits={e.id: np.array([6, 0, 0], dtype=np.float32) for e in train}, alpha=0.0)
    found = fit_once(bench.job("nonsense", train, (), **{**HEAD, "epochs": 30, "learning_rate": 0.1}).but(
        teacher=teacher, warm=False))
    assert (predict.logits(found.model, found.model.rows(train)).argmax(-1) == 0).all()


def test_rows_without_a_label_learn_from_the_teacher(bench: Bench, train: Any, held: Any) -> None:
    blank = [example(300 + at, None, str(e.input), tags=("unlabelled",)) for at, e in enumerate(rows(12, first=400))]
    job = bench.job("blank", train, held, **HEAD).but(unlabelled=blank)
    teacher = Ensemble(count=2)
    found = Distill(teacher=teacher).run(fit_once, job)
    assert found.artifacts["distill.json"]["unlabelled"] == 12 and found.summary["train_examples"] == 42
    alone = Distill(teacher=teacher, unlabelled=False).run(fit_once, job.but(folder=bench.folder / "alone"))
    assert alone.summary["train_examples"] == 30 and not same(weights(found), weights(alone))


def test_what_cannot_be_distilled_is_refused(bench: Bench, train: Any, held: Any) -> None:
    with pytest.raises(SpecError, match=r"teacher\.distill"):
        Distill(teacher=Ensemble(distill=True)).run(fit_once, bench.job("twice", train, held, **HEAD))
