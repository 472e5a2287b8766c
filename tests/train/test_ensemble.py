"""Several models are one: the mean of their probabilities, or of their weights; saved, loaded, and killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_kit import Bench, Killed, rows, same, weights

from luthier.adapt import predict
from luthier.adapt.ensemble import EnsembleNetwork, combine
from luthier.adapt.labelled import load_label_model, save_label_model
from luthier.errors import DataError, ModelError, SpecError
from luthier.task import Task
from luthier.testing import check_strategy
from luthier.train.labelled.fit import fit_once
from luthier.train.plans.gradual import Gradual
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies import _members
from luthier.train.strategies.ensemble import Ensemble

HEAD: dict[str, Any] = {"plan": HeadOnly(), "epochs": 3, "verify_resume": False}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("ensemble"))


@pytest.fixture(scope="module")
def train() -> list[Any]:
    return rows(30)


@pytest.fixture(scope="module")
def held() -> list[Any]:
    return rows(15, first=100, split="validation")


def moved(model: Any, *, head_only: bool, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.module.named_parameters():
            if name.startswith("head") or not head_only:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("head_only", [True, False])
@pytest.mark.parametrize("several", [False, True])
def test_one_folder_says_the_members_mean(head_only: bool, several: bool, tmp_path: Path, train: Any) -> None:
    bench = Bench(tmp_path, task=Task(type="classify", multi_label=several))
    models = [moved(bench.open(0), head_only=head_only, seed=at) for at in range(3)]
    given = models[0].rows(train, targets=False)
    shares = [0.5, 0.3, 0.2]
    each = [predict.probabilities(predict.logits(model, given), multi_label=several) for model in models]
    wanted = sum(share * one for share, one in zip(shares, each))
    whole = combine(models, shares)
    assert isinstance(whole.module, EnsembleNetwork) and whole.module.shared == head_only
    save_label_model(whole, tmp_path / "saved")
    again = load_label_model(tmp_path / "saved")
    for model in (whole, again):
        found = predict.probabilities(predict.logits(model, given), multi_label=several)
        assert np.abs(found - wanted).max() < 1e-6
    assert np.array_equal(predict.logits(whole, given), predict.logits(again, given))
    size = (tmp_path / "saved" / "model.safetensors").stat().st_size
    save_label_model(models[0], tmp_path / "one")
    one = (tmp_path / "one" / "model.safetensors").stat().st_size
    assert size < 1.2 * one if head_only else size > 2.5 * one, "a shared backbone is stored once"
    names = [name for group in again.groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in again.module.named_parameters())


def test_features_give_the_same_answer_as_the_rows(train: Any, bench: Bench) -> None:
    for head_only in (True, False):
        whole = combine([moved(bench.open(0), head_only=head_only, seed=at) for at in range(2)])
        given = whole.rows(train, targets=False)
        inputs = whole.processor.batch(given)
        assert torch.equal(whole.module(inputs), whole.module({"features": whole.module.features(inputs)}))


def test_layers_that_stood_still_are_stored_once(bench: Bench, tmp_path: Path) -> None:
    models = [bench.open(0) for _ in range(2)]
    with torch.no_grad():
        for at, model in enumerate(models):
            for name in [*model.groups["layer.001"], *model.groups["head"]]:
                model.module.get_parameter(name).add_(0.01 * (at + 1))
    save_label_model(combine(models), tmp_path)
    from safetensors import safe_open

    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        names = [*file.keys()]
    assert any(name.startswith("members.1.") for name in names)
    assert not any(name.startswith("members.1.") and ".layer.0." in name for name in names)
    again = load_label_model(tmp_path)
    given = again.rows(rows(6), targets=False)
    assert np.array_equal(predict.logits(again, given), predict.logits(combine(models), given))


def test_members_must_agree_on_their_labels(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path, labels=("ant", "cat", "bee"))
    with pytest.raises(ModelError, match="same labels"):
        combine([bench.open(0), other.open(0)])
    single = bench.open(0)
    assert combine([single, bench.open(1)], [1.0, 0.0]) is single


@pytest.mark.parametrize("members", ["folds", "seeds", "snapshots"])
@pytest.mark.parametrize("how", ["mean", "weighted", "soup"])
def test_every_way_gives_one_model_with_figures(members: Any, how: Any, bench: Bench, train: Any, held: Any) -> None:
    strategy = Ensemble(members=members, count=3, combine=how)
    check_strategy(strategy)
    job = bench.job(f"{members}-{how}", train, held, **HEAD)
    found = strategy.run(fit_once, job)
    report = found.artifacts["ensemble.json"]
    assert len(report["each"]) == 3 and report["together"]["accuracy"] == pytest.approx(found.value)
    assert found.summary["gap"]["n_train"] == 30 and (job.folder / "contract.txt").is_file()
    if how == "soup":
        assert not isinstance(found.model.module, EnsembleNetwork) and report["in_the_soup"]
        best = max(one["accuracy"] for one in report["each"])
        assert report["together"]["accuracy"] >= best - 1e-9, "a soup is never worse than its best member"
    if how == "weighted":
        assert sum(report["shares"]) == pytest.approx(1)
        assert report["together"]["log_loss"] <= min(one["log_loss"] for one in report["each"]) + 1e-6


def test_the_mean_is_at_least_as_likely_as_its_members_are_on_average(bench: Bench, train: Any, held: Any) -> None:
    """Jensen's inequality: the log loss of the mean is at most the mean log loss."""
    report = Ensemble(count=3).run(fit_once, bench.job("jensen", train, held, **HEAD)).artifacts["ensemble.json"]
    assert report["together"]["log_loss"] <= np.mean([one["log_loss"] for one in report["each"]]) + 1e-9


def test_a_snapshot_begins_where_the_last_one_ended(bench: Bench, train: Any, held: Any) -> None:
    seen: dict[str, list[tuple[float, float]]] = {}

    def noting(job: Any) -> Any:
        def watch(done: Any) -> None:
            seen.setdefault(job.note, []).append((done.learning_rate, done.loss))

        return fit_once(job.but(watch=watch))

    Ensemble(members="snapshots", count=2).run(noting, bench.job("cycles", train, held, epochs=6, verify_resume=False))
    first, second = seen.values()
    assert len(first) == len(second) and [rate for rate, _ in first] == [rate for rate, _ in second]
    assert first[-1][0] < 0.05 * max(rate for rate, _ in first), "each cycle ends at a rate of almost zero"
    with pytest.raises(SpecError, match="one phase"):
        Ensemble(members="snapshots").run(fit_once, bench.job("gradual", train, held, plan=Gradual()))
    with pytest.raises(SpecError, match="at least 5 epochs"):
        Ensemble(members="snapshots").run(fit_once, bench.job("short", train, held, epochs=2))


@pytest.mark.parametrize("members", ["seeds", "snapshots"])
def test_a_killed_ensemble_ends_with_the_same_bits(members: Any, bench: Bench, train: Any, held: Any) -> None:
    strategy = Ensemble(members=members, count=2)
    settings = {"epochs": 2, "verify_resume": False, "checkpoint_every_s": 1e-9}
    whole = strategy.run(fit_once, bench.job(f"calm-{members}", train, held, **settings))
    job = bench.job(f"killed-{members}", train, held, **settings)

    def dies(one: Any) -> Any:
        def watch(done: Any) -> None:
            if "2 of 2" in one.note and done.step == 4:
                raise Killed

        return fit_once(one.but(watch=watch))

    with pytest.raises(Killed):
        strategy.run(dies, job)
    again = strategy.run(fit_once, job)
    assert same(weights(whole), weights(again)) and whole.artifacts == again.artifacts


def test_a_bad_member_does_not_enter_the_soup(bench: Bench, train: Any, held: Any) -> None:
    job = bench.job("bad", train, held, **HEAD)
    good = [fit_once(job.but(folder=job.folder / str(at), seed=0)) for at in range(2)]
    with torch.no_grad():
        good[1].model.module.get_parameter(good[1].model.groups["head"][0]).mul_(-20)  # turns every answer round
    found, chosen = _members.soup(good, job)
    assert chosen == [0] and same(weights(found), weights(good[0]))


def test_greedy_selection_prefers_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    good = 3 * np.eye(3)[targets] + rng.normal(size=(200, 3))
    bad = rng.normal(size=(200, 3)) * 3
    shares = _members.greedy_weights([bad, good], targets, multi_label=False)
    assert shares[1] > 0.8 and sum(shares) == pytest.approx(1)


def test_calibration_error_equals_a_plain_count() -> None:
    logits = np.log(np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10))
    targets = np.array([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    assert _members.calibration_error(logits, targets, multi_label=False) == pytest.approx((0.1 + 0.0) / 2)


def test_without_validation_rows_only_the_mean_is_possible(bench: Bench, train: Any) -> None:
    for how in ("soup", "weighted"):
        with pytest.raises(DataError, match="validation rows"):
            Ensemble(combine=how).run(fit_once, bench.job("none", train, (), **HEAD))  # type: ignore[arg-type]
    assert Ensemble(count=2).run(fit_once, bench.job("none", train, (), **HEAD)).value is None
