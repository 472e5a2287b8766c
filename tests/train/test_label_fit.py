"""The labelled loop: what moves, what stays, and that a killed run ends with the bits of an undisturbed one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_kit import LABELS, Bench, Killed, example, kill_at, rows, same, weights

from luthier.adapt.head import Head
from luthier.errors import ContractError, SpecError
from luthier.task import Task
from luthier.train import streams
from luthier.train.average import Average
from luthier.train.base import Train
from luthier.train.labelled import pool
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.gap import memorises
from luthier.train.losses.focal import Focal
from luthier.train.plans.all import All
from luthier.train.plans.discriminative import Discriminative
from luthier.train.plans.gradual import Gradual
from luthier.train.plans.head import HeadOnly
from luthier.train.plans.two_phase import TwoPhase


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fit"), head=Head(warm_start=False))


@pytest.fixture(scope="module")
def train() -> list[Any]:
    return rows(24)


@pytest.fixture(scope="module")
def held() -> list[Any]:
    return rows(12, first=100, split="validation")


PLANS: dict[str, dict[str, Any]] = {
    "all": {"plan": All(), "schedule": "plateau", "plateau_patience": 1},
    "gradual-epoch": {"plan": Gradual(every=0.5), "epochs": 3},
    "gradual-plateau": {"plan": Gradual(when="plateau", every=1), "validate_every": 2, "epochs": 3,
                        "learning_rate": 3e-2},
    "two_phase": {"plan": TwoPhase(head_epochs=1), "epochs": 2},
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_resumed_run_ends_with_the_same_bits(plan: str, bench: Bench, train: Any, held: Any) -> None:
    """Killed in the middle of a phase and exactly at a boundary; with dropout and averaging."""
    if plan == "gradual-plateau":
        held = rows(12, first=100, noise=True)
    settings = {"patience": 0, "average": Average(start=0.4), "checkpoint_every_s": 1e-9, **PLANS[plan]}
    seen: dict[int, int] = {}
    job = bench.job(f"{plan}-whole", train, held, **settings)
    before = _phase_starts(seen)
    try:
        whole = fit_once(job)
    finally:
        before()
    boundaries = sorted(seen.values())[1:]
    assert plan == "all" or boundaries, "the test needs a phase that begins in the middle of the run"
    total = whole.summary["steps"]
    moments = {total // 2, *(first + 1 for first in boundaries[:1])}  # a kill comes before its update's checkpoint
    for moment in sorted(step for step in moments if 1 < step <= total):
        job = bench.job(f"{plan}-killed-{moment}", train, held, watch=kill_at(moment), **settings)
        with pytest.raises(Killed):
            fit_once(job)
        again = fit_once(job.but(watch=None))
        assert same(weights(whole), weights(again)), f"killed at update {moment}"
        assert again.value == whole.value and again.loss == whole.loss
        lines = [json.loads(line)["step"] for line in (job.folder / "steps.jsonl").read_text().splitlines()]
        assert lines == [*range(1, total + 1)]


def _phase_starts(seen: dict[int, int]) -> Any:
    """Note at which update every phase begins."""
    patch = pytest.MonkeyPatch()
    original = streams.planned

    def spied(steps: Any, plan: Any, learner: Any, groups: Any, memory: Any, **rest: Any) -> Any:
        for done in original(steps, plan, learner, groups, memory, **rest):
            seen.setdefault(memory.phase, done.step)
            yield done

    patch.setattr(streams, "planned", spied)
    return patch.undo


@pytest.mark.parametrize(("plan", "moving"), [
    (All(), [{"embeddings", "layer.000", "layer.001", "head"}]),
    (HeadOnly(), [{"head"}]),
    (Discriminative(), [{"embeddings", "layer.000", "layer.001", "head"}]),
    (Gradual(every=1), [{"head"}, {"head", "layer.001"}, {"head", "layer.001", "layer.000"},
                        {"head", "layer.001", "layer.000", "embeddings"}]),
    (Gradual(every=1, lowest=1, groups_at_once=2), [{"head"}, {"head", "layer.001", "layer.000"}]),
    (TwoPhase(head_epochs=1), [{"head"}, {"embeddings", "layer.000", "layer.001", "head"}]),
], ids=lambda value: getattr(value, "kind", ""))
@pytest.mark.parametrize("killed", [0, 8])
def test_frozen_groups_keep_their_bits_and_the_others_move(plan: Any, moving: list[set[str]], killed: int, bench: Bench,
                                                           train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured from outside after every epoch (six updates), also over a kill after the seventh update."""
    monkeypatch.setattr("luthier.train.labelled.fit.learns_head_only", lambda job, model: False)  # the network itself
    states: dict[int, dict[str, torch.Tensor]] = {}
    model: list[Any] = []

    def opened(seed: int) -> Any:
        model[:] = [bench.open(seed)]
        states.setdefault(0, {name: value.clone() for name, value in model[0].module.state_dict().items()})
        return model[0]

    def note(done: Any) -> None:
        states[done.step] = {name: value.clone() for name, value in model[0].module.state_dict().items()}
        if done.step == killed:
            raise Killed

    job = bench.job(f"moves-{plan.kind}-{len(moving)}-{killed}", train, (), plan=plan, epochs=max(len(moving), 2),
                    watch=note, checkpoint_every_s=1e-9).but(open=opened)
    if killed:
        with pytest.raises(Killed):
            fit_once(job)
        killed = 0
    fit_once(job)
    groups = model[0].groups
    for epoch in range(len(moving)):
        start, end = states[6 * epoch], states[6 * epoch + 6]
        moved = {group for group, names in groups.items() if not all(torch.equal(start[n], end[n]) for n in names)}
        assert moved == moving[epoch]
    point = next(p for p in json.loads((job.folder / "contract.json").read_text()) if p["point"] == 9)
    assert point["state"] == "kept"


def test_a_layer_that_slips_while_frozen_stops_the_run(bench: Bench, train: Any) -> None:
    model: list[Any] = []

    def opened(seed: int) -> Any:
        model[:] = [bench.open(seed)]
        return model[0]

    def slip(done: Any) -> None:
        if done.step == 4:
            with torch.no_grad():
                next(model[0].module.backbone.parameters()).add_(1e-3)

    job = bench.job("slip", train, (), plan=TwoPhase(), watch=slip).but(open=opened)
    with pytest.raises(ContractError, match="embeddings changed while frozen"):
        fit_once(job)


def test_discriminative_rates_scale_the_first_adam_step(bench: Bench, train: Any) -> None:
    """Adam's first step has the size of the learning rate, so factors show in it."""
    states: list[Any] = []

    def opened(seed: int) -> Any:
        model = bench.open(seed)
        states.append((model, {name: value.clone() for name, value in model.module.named_parameters()}))
        return model

    fit_once(bench.job("factors", train, (), plan=Discriminative(divide_by=2.0), max_steps=1, weight_decay=0,
                       clip_norm=0, warmup_share=0, schedule="constant").but(open=opened))
    model, start = states[0]
    moved = {group: max(float((model.module.get_parameter(name).detach() - start[name]).abs().max()) for name in names)
             for group, names in model.groups.items()}
    assert [*moved] == ["embeddings", "layer.000", "layer.001", "head"]
    for depth, group in enumerate(reversed(moved)):
        assert moved[group] == pytest.approx(1e-3 / 2.0 ** depth, rel=1e-2)


def test_head_only_on_cached_features_equals_training_through_the_network(
        bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held = rows(24, size=12), rows(9, first=100, size=12)
    settings = {"plan": HeadOnly(), "epochs": 4, "learning_rate": 1e-2}
    cached = fit_once(bench.job("cached", train, held, **settings))
    assert cached.summary["cached_features"]
    monkeypatch.setattr("luthier.train.labelled.fit.learns_head_only", lambda job, model: False)
    through = fit_once(bench.job("through", train, held, **settings, warmup_share=0.05))
    assert not through.summary["cached_features"]
    a, b = weights(cached), weights(through)
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("backbone"))


def test_features_of_many_fits_are_computed_once(bench: Bench, train: Any, held: Any,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    job = pool.pooled(bench.job("pooled", train, held, plan=HeadOnly()), [*train, *held])
    assert job.pool is not None and len(job.pool.vectors) == len(train) + len(held)
    alone = fit_once(job.but(folder=bench.folder / "alone", pool=None))
    monkeypatch.setattr("luthier.adapt.predict.features", None)
    assert same(weights(fit_once(job)), weights(alone))


def test_a_bfloat16_run_leaves_frozen_weights_at_their_float32_bits(bench: Bench, train: Any, held: Any) -> None:
    fitted = fit_once(bench.job("low", train, held, plan=Gradual(lowest=2), precision="bfloat16", epochs=1))
    start = bench.open(0)
    for group in ("embeddings", "layer.000"):
        for name in start.groups[group]:
            assert torch.equal(start.module.get_parameter(name), fitted.model.module.get_parameter(name))
    assert fitted.model.module.head[-1].weight.dtype == torch.float32


def test_dropout_does_not_depend_on_what_ran_before(bench: Bench, train: Any, held: Any) -> None:
    first = fit_once(bench.job("order-1", train, held))
    torch.rand(7)
    second = fit_once(bench.job("order-2", train, held, verify_resume=False))
    assert same(weights(first), weights(second))
    other = fit_once(bench.job("order-3", train, held, seed=1))
    assert not same(weights(first), weights(other))


def test_a_kept_fit_is_not_run_again_and_has_the_same_bits(bench: Bench, train: Any, held: Any) -> None:
    job = bench.job("kept", train, held).but(keep=True)
    first = fit_once(job)
    ran: list[int] = []
    again = fit_once(job.but(watch=lambda done: ran.append(done.step)))
    assert not ran and same(weights(first), weights(again))
    assert again.value == first.value and again.summary == first.summary
    assert first.logits is not None and again.logits is not None and np.array_equal(again.logits, first.logits)
    changed = [dataclasses.replace(train[0], weight=0.5), *train[1:]]
    fit_once(job.but(train=changed, watch=lambda done: ran.append(done.step)))
    assert ran, "other rows are another fit"


def test_stopping_after_some_updates_leaves_the_schedule(bench: Bench, train: Any) -> None:
    rates: dict[str, list[float]] = {"whole": [], "part": []}
    fit_once(bench.job("whole", train, (), watch=lambda done: rates["whole"].append(done.learning_rate)))
    fitted = fit_once(bench.job("part", train, (), watch=lambda done: rates["part"].append(done.learning_rate))
                      .but(stop_after=5))
    assert fitted.summary["steps"] == 5 and rates["part"] == rates["whole"][:5]


def test_early_stopping_waits_for_the_last_phase(bench: Bench, train: Any, held: Any) -> None:
    """A patience that ends during the head's epochs must not keep the layers below frozen for good."""
    noisy = [dataclasses.replace(e, labels=(LABELS[at * 7 % 3],)) for at, e in enumerate(held)]
    settings = {"plan": TwoPhase(head_epochs=3), "epochs": 20, "patience": 1, "validate_every": 1, "learning_rate": 0.5}
    fitted = fit_once(bench.job("waits", train, noisy, **settings))
    assert fitted.summary["steps"] > 3 * 6 and fitted.summary["stopped_early"]


def test_validation_logits_are_of_all_rows_in_order(bench: Bench, train: Any, held: Any) -> None:
    fitted = fit_once(bench.job("part-held", train, held, max_validation_examples=4))
    assert fitted.logits is not None and fitted.logits.shape == (len(held), 3)
    assert fitted.summary["validation"]["n"] == len(held)


def test_rows_of_weight_zero_do_not_train(bench: Bench, train: Any, held: Any) -> None:
    spoiled = [*train, *(dataclasses.replace(e, id=f"zero{e.id}", weight=0.0, input="zzzz", labels=("cat",))
                         for e in train)]
    job = bench.job("zero", spoiled, held)
    assert same(weights(fit_once(job)), weights(fit_once(bench.job("no-zero", train, held))))


@pytest.mark.parametrize("several", [False, True])
def test_balanced_sampling_draws_every_class_alike(several: bool) -> None:
    from luthier.adapt.backbones.base import Row
    from luthier.train.labelled.feed import LabelOrder, balanced_draw

    numbers = [0] * 90 + [1] * 9 + [2]
    found = [Row(str(at), (1,), 1, np.eye(3, dtype=np.float32)[n] if several else n) for at, n in enumerate(numbers)]
    draw = balanced_draw(found, multi_label=several)
    order = LabelOrder((1,) * 100, 10, 0, draw)
    seen = np.bincount([numbers[at] for epoch in range(30) for update in order.epoch(epoch) for at in update])
    assert np.allclose(seen / seen.sum(), 1 / 3, atol=0.03)


def test_a_soft_row_is_drawn_as_its_likeliest_class() -> None:
    from luthier.adapt.backbones.base import Row
    from luthier.train.labelled.feed import balanced_draw

    soft = [Row("a", (1,), 1, np.array([0.4, 0.3, 0.3], dtype=np.float32)), Row("b", (1,), 1, 1), Row("c", (1,), 1, 1)]
    assert balanced_draw(soft) == pytest.approx((0.5, 0.25, 0.25))


def test_warm_start_predicts_as_scikit_learn(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from luthier.adapt import predict

    bench = Bench(tmp_path, dropout=0.0)
    train, held = rows(60), rows(30, first=100)
    model = bench.open(0)
    x, y = predict.features(model, model.rows(train)), np.array([LABELS.index((e.labels or ("",))[0]) for e in train])
    reference = LogisticRegression(C=1.0, max_iter=300).fit(x, y)
    fitted = fit_once(bench.job("warm", train, (), plan=HeadOnly()).but(stop_after=0))
    assert fitted.summary["steps"] == 0 and fitted.summary["warm_start"] == 1.0
    found = predict.probabilities(predict.logits(fitted.model, fitted.model.rows(held)))
    wanted = reference.predict_proba(predict.features(model, model.rows(held)))
    assert np.abs(found - wanted).max() < 1e-4


def test_l2sp_pulls_what_learns_towards_the_base_model(bench: Bench, train: Any) -> None:
    from luthier.train.regularizers.l2sp import L2SP

    start = bench.open(0).module.state_dict()

    def distance(name: str, strength: float | None) -> tuple[float, Any]:
        pull = () if strength is None else (L2SP(strength=strength),)
        fitted = fit_once(bench.job(name, train, (), regularizers=pull, plan=Gradual(lowest=2), epochs=2))
        found = weights(fitted)
        return float(sum((found[n] - start[n]).square().sum() for n in found)), found

    free, none, tight = distance("free", None), distance("none", 0.0), distance("tight", 100.0)
    assert same(free[1], none[1]) and tight[0] < 0.5 * free[0]


def test_average_is_the_mean_of_the_weights(bench: Bench, train: Any) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    model: list[Any] = []

    def opened(seed: int) -> Any:
        model[:] = [bench.open(seed)]
        return model[0]

    def note(done: Any) -> None:
        if done.step > 6:
            seen.append({name: value.clone() for name, value in model[0].module.named_parameters()})

    fitted = fit_once(bench.job("mean", train, (), average=Average(start=0.5), watch=note).but(open=opened))
    assert fitted.summary["average"] == {"weights": 6, "used": True}
    for name, value in fitted.model.module.named_parameters():
        mean = torch.stack([one[name] for one in seen]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)


def test_averaging_also_counts_after_an_early_stop(bench: Bench, train: Any) -> None:
    held = rows(12, first=200, noise=True)
    fitted = fit_once(bench.job("mean-early", train, held, average=Average(start=0), patience=2, validate_every=1,
                                epochs=20, learning_rate=1e-2))
    assert fitted.summary["stopped_early"] and fitted.summary["average"]["weights"] == fitted.summary["steps"]
    assert "loss" in fitted.summary["average"], "the mean was measured"


@pytest.mark.parametrize(("field", "value", "task"), [
    ("loss", Focal(), "tag"), ("sampling", "balanced", "embed"), ("best_by", "metric", "assistant"),
    ("recompute", True, "classify"), ("packing", "packed", "classify"), ("loss", Focal(), "assistant"),
])
def test_a_setting_that_the_task_cannot_honour_is_refused(field: str, value: Any, task: str) -> None:
    with pytest.raises(SpecError, match=f"train.{field}"):
        Train(**{field: value}).refuse_misfits(Task(type=task))  # type: ignore[arg-type]


@pytest.mark.parametrize(("point", "change"), [
    (1, lambda train, held: ([*train, example(900, None, "nothing")], held)),
    (4, lambda train, held: ([*train, *(example(900 + n, "ant", "word " * 400 + str(n)) for n in range(9))], held)),
    (7, lambda train, held: ([*train, dataclasses.replace(held[0], id="copy", split="train")], held)),
    (8, lambda train, held: ([e for e in train if e.labels != ("cat",)], held)),
])
def test_a_planted_violation_stops_before_the_first_update(point: int, change: Any, bench: Bench, train: Any, held: Any
                                                           ) -> None:
    mine, theirs = change(train, held)
    ran: list[int] = []
    job = bench.job(f"violated-{point}", mine, theirs, watch=lambda done: ran.append(done.step))
    with pytest.raises(ContractError, match=f"point {point}"):
        fit_once(job)
    assert not ran


def test_random_labels_by_heart_are_called_memorised_and_learned_ones_are_not(tmp_path: Path) -> None:
    """100 rows, 30 epochs, the last weights: labels drawn at random can only be memorised."""
    bench = Bench(tmp_path, dropout=0.0, head=Head(warm_start=False, dropout=0.0))
    settings = {"epochs": 30, "patience": 0, "learning_rate": 4e-3, "batch_size": 20, "validate_every": 1000,
                "verify_resume": False}
    gaps = {}
    for noise in (True, False):
        train, held = rows(100, noise=noise, size=10), rows(90, first=500, noise=noise, size=10)
        job = bench.job(f"heart-{noise}", train, (), **settings)
        fitted = fit_once(job)
        from luthier.train.labelled.gap import measure_gap
        from luthier.train.labelled.score import validate

        value, _, _ = validate(fitted.model, held, fitted.model.rows(held))
        gaps[noise] = measure_gap(fitted.model, train, fitted.model.rows(train), validation=value, n_validation=90,
                                  seed=0)
    assert gaps[True]["memorises"] and "memorises" in gaps[True]["sentence"], gaps
    assert not gaps[False]["memorises"], gaps


def test_a_gap_that_the_rows_cannot_show_is_not_called_memorising() -> None:
    assert memorises("accuracy", 1.0, 0.7, n_train=500, n_validation=500)["memorises"]
    assert not memorises("accuracy", 1.0, 0.8, n_train=100, n_validation=10)["memorises"]
    assert not memorises("accuracy", 0.85, 0.7, n_train=500, n_validation=500)["memorises"]
    assert memorises("log_loss", 0.01, 0.9, n_train=500, n_validation=500)["memorises"]
    assert not memorises("log_loss", 0.01, 0.1, n_train=500, n_validation=500)["memorises"]
