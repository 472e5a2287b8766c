"""Tasks in sequence: what each stage sees, what is forgotten, and that a killed run ends with the same bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from continual_kit import LABELS, TASKS, tasks_job
from fit_kit import Bench, Killed, kill_at, same, weights

from luthier.adapt.grow import grown, with_outputs
from luthier.errors import DataError, SpecError
from luthier.testing import check_strategy
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.matrix import answers_by_mode, matrix_of
from luthier.train.labelled.orders import compare_orders
from luthier.train.past import Past
from luthier.train.plans.head import HeadOnly
from luthier.train.replay import Replay
from luthier.train.strategies._stages import copied
from luthier.train.strategies._tasks import nearest_chain
from luthier.train.strategies.sequence import TaskSequence, other_orders
from luthier.train.streams import read_tensors

QUICK: dict[str, Any] = {"verify_resume": False, "epochs": 6, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("sequence"), labels=LABELS)


def job_of(bench: Bench, name: str, strategy: TaskSequence, **spec: Any) -> Any:
    return tasks_job(bench, name, strategy, **{**QUICK, **spec})


def matrix(fitted: Any, mode: str) -> np.ndarray:
    return np.array(fitted.artifacts["matrix.json"]["matrix"][mode], dtype=float)


def run(job: Any) -> Any:
    return job.spec.strategy.run(fit_once, job)


def test_the_spec_keeps_the_laws() -> None:
    check_strategy(TaskSequence(labels={"a": ("x", "y"), "b": ("z",)}, order=("b", "a"), heads="own"))
    with pytest.raises(ValueError, match="not both"):
        TaskSequence(by="domain", labels={"a": ("x",)})


def test_naive_training_forgets_and_joint_training_does_not(bench: Bench) -> None:
    fitted = run(job_of(bench, "naive", TaskSequence()))
    found = matrix(fitted, "class_incremental")
    assert fitted.artifacts["matrix.json"]["tasks"] == ["one", "two", "three"]
    assert found.diagonal().min() >= 0.8, "each task was learned"
    assert found[-1, 0] <= found[0, 0] - 0.3, "the first task is forgotten"
    assert np.all(found[np.triu_indices(3, 1)] == 0), "a class that no stage has seen yet is never answered"
    assert np.isnan(matrix(fitted, "task_incremental")[0, 2]), "no output yet among which to answer"
    joint = fit_once(job_of(bench, "joint", TaskSequence()).but(folder=bench.folder / "joint-once"))
    assert joint.value >= found[-1].mean() + 0.15
    assert fitted.model.labels == LABELS and dict(fitted.model.parts) == TASKS


def test_own_heads_on_a_frozen_backbone_forget_nothing(bench: Bench) -> None:
    heads: list[Any] = []

    def fit(job: Any) -> Any:
        fitted = fit_once(job)
        heads.append((fitted.model.labels, weights(fitted)["head.1.weight"]))
        return fitted

    job = job_of(bench, "own", TaskSequence(heads="own"), plan=HeadOnly(), epochs=3)
    fitted = job.spec.strategy.run(fit, job)
    found = matrix(fitted, "task_incremental")
    for at in range(3):
        assert np.all(found[at:, at] == found[at, at])
    answers, _ = read_tensors(bench.folder / "own" / "stages.safetensors")
    assert answers["test"].shape == (3, 24, 6)
    np.testing.assert_allclose(answers["test"][2, :, :2], answers["test"][0, :, :2], atol=1e-5)
    (first, old), (_, mid), (last, new) = heads
    assert first == last[:2] and np.array_equal(old, new[:2]), "weight decay does not wear old outputs away"
    assert np.array_equal(mid[2:], new[2:4]) and not np.array_equal(mid[2:], new[:2])


def test_replay_keeps_more_than_naive_training(bench: Bench) -> None:
    job = job_of(bench, "replayed", TaskSequence(), keep=Reservoir(size=24), replay=Replay(source="past", share=0.5))
    fitted = run(job)
    naive = run(job_of(bench, "naive", TaskSequence()))  # finished before: taken from its folder
    mine, theirs = matrix(fitted, "class_incremental"), matrix(naive, "class_incremental")
    assert mine[-1].mean() >= theirs[-1].mean() + 0.2
    told = fitted.summary["sequence"]["stages"]
    assert told[0]["replayed"] == 0 and 0 < told[1]["replayed"] <= 24
    assert {label for one in fitted.memory["rows"] for label in one.labels} > set(TASKS["one"])


def test_replayed_rows_that_are_cut_are_counted_with_the_others(bench: Bench) -> None:
    job = job_of(bench, "long", TaskSequence(heads="own"), keep=Reservoir(size=12), plan=HeadOnly(), epochs=1,
                 replay=Replay(source="past", share=0.25), max_truncated_share=1.0)
    job = job.but(train=[dataclasses.replace(one, input=one.input * 20) for one in job.train])
    run(job)
    told = json.loads((job.folder / "stage-3" / "contract.json").read_text("utf-8"))
    assert "36 of 36 texts cut" in next(point["text"] for point in told if point["point"] == 4), "24 and 12 replayed"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_run_killed_in_any_stage_ends_with_the_same_bits(bench: Bench, stage: int) -> None:
    spec = {"keep": Reservoir(size=12), "replay": Replay(source="past", share=0.25), "epochs": 2}
    whole = run(job_of(bench, "whole", TaskSequence(), **spec))
    seen: list[int] = []

    def watch(done: Any) -> None:
        seen.extend([1] if done.step == 1 else [])
        if len(seen) == stage:
            kill_at(3)(done)

    job = job_of(bench, f"killed-{stage}", TaskSequence(), **spec, checkpoint_every_s=1e-9)
    with pytest.raises(Killed):
        run(job.but(watch=watch))
    again = run(job)
    assert same(weights(whole), weights(again))
    assert whole.artifacts["matrix.json"] == again.artifacts["matrix.json"]
    ours, theirs = (read_tensors(bench.folder / name / "stages.safetensors")[0] for name in
                    ("whole", f"killed-{stage}"))
    assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ("validation", "test"))


def test_stages_get_their_rows_their_labels_and_their_past(bench: Bench) -> None:
    jobs: list[Any] = []

    def fit(job: Any) -> Any:
        jobs.append(job)
        return fit_once(job)

    job = job_of(bench, "stages", TaskSequence(heads="own", choose_by="all", order=("two", "three", "one")), epochs=1)
    job.spec.strategy.run(fit, job)
    assert [{one.groups["task"] for one in stage.train} for stage in jobs] == [{"two"}, {"three"}, {"one"}]
    assert [len({one.groups["task"] for one in stage.validation}) for stage in jobs] == [1, 2, 3]
    assert [stage.open(0).labels for stage in jobs] == [
        ("cat", "dog"), ("cat", "dog", "elk", "fox"), LABELS]
    assert jobs[0].past is None and jobs[1].past.labels == ("cat", "dog")
    assert [stage.protect for stage in jobs] == [False, True, True]
    assert jobs[2].part_of[jobs[2].train[0].id] == "one" and not any(stage.test for stage in jobs)
    before, after = jobs[2].past.open(), jobs[2].open(0)
    for label in before.labels:
        old, new = before.labels.index(label), after.labels.index(label)
        assert np.array_equal(before.module.head[-1].weight[old].detach(), after.module.head[-1].weight[new].detach())
    assert before.module is not jobs[2].past.open().module


def test_tasks_may_share_labels_and_the_start_is_then_measured(bench: Bench) -> None:
    def halves(examples: list[Any]) -> list[Any]:
        return [dataclasses.replace(one, groups={"site": "ab"[at // 6 % 2]}) for at, one in enumerate(examples)]

    job = job_of(bench, "sites", TaskSequence(by="site"), epochs=3)
    job = job.but(train=halves(job.train), validation=halves(job.validation), test=halves(job.test))
    told = run(job).artifacts["matrix.json"]
    assert told["tasks"] == ["a", "b"]
    assert told["matrix"]["class_incremental"] == told["matrix"]["task_incremental"]
    assert told["matrix"]["class_incremental"][0][1] > told["start"]["class_incremental"][1] + 0.3, "forward transfer"


def test_a_sequence_may_begin_from_an_earlier_model(bench: Bench) -> None:
    whole = job_of(bench, "earlier", TaskSequence(heads="own"), plan=HeadOnly(), epochs=1)
    first = [one for one in whole.train if one.groups["task"] == "one"]
    before = fit_once(whole.but(folder=bench.folder / "before", train=first, validation=(), test=(),
                                open=lambda seed: with_outputs(bench.open(seed), TASKS["one"]))).model
    jobs: list[Any] = []

    def fit(job: Any) -> Any:
        jobs.append(job)
        return fit_once(job)

    def later(examples: Any) -> list[Any]:
        return [one for one in examples if one.groups["task"] != "one"]

    job = whole.but(past=Past(open=lambda: copied(before)), warm=False, train=later(whole.train),
                    validation=later(whole.validation), test=whole.test,
                    open=lambda seed: grown(copied(before), LABELS, seed=seed))
    fitted = job.spec.strategy.run(fit, job)
    assert [stage.open(0).labels for stage in jobs] == [LABELS[:4], LABELS]
    assert all(stage.protect and stage.warm_labels for stage in jobs), "what it knew is protected at once"
    assert np.array_equal(weights(fitted)["head.1.weight"][:2], before.module.state_dict()["head.1.weight"])
    answers, _ = read_tensors(job.folder / "stages.safetensors")
    assert answers["test"].shape[0] == 3 and np.isfinite(answers["test"][:, :, :2]).all(), "the start is recorded too"
    assert dict(fitted.model.parts) == {name: TASKS[name] for name in ("two", "three")}


def test_orders_by_similarity_and_curriculum_are_deterministic(bench: Bench) -> None:
    for order in ("similarity", "curriculum"):
        found = [run(job_of(bench, f"{order}-{turn}", TaskSequence(order=order), plan=HeadOnly(), epochs=1))
                 for turn in range(2)]
        told = [one.artifacts["stages.json"] for one in found]
        assert told[0]["tasks"] == told[1]["tasks"] and sorted(told[0]["tasks"]) == sorted(TASKS)
        assert same(weights(found[0]), weights(found[1]))
        if order == "curriculum":
            scores = [told[0]["why"]["accuracy"][name] for name in told[0]["tasks"]]
            assert scores == sorted(scores, reverse=True)


def test_the_chain_goes_to_the_nearest_and_begins_in_the_middle() -> None:
    near = np.array([[1.0, 0.1, 0.9], [0.1, 1.0, 0.5], [0.9, 0.5, 1.0]])
    assert nearest_chain(near) == [2, 0, 1]
    assert nearest_chain(np.eye(3)) == [0, 1, 2], "ties go to the one that appears first"


def test_matrices_of_a_hand_made_example() -> None:
    nan = np.nan
    logits = np.array([[[2, 1, nan], [1, 2, nan], [5, 0, nan]], [[2, 1, 3], [0, 2, 1], [1, 0, 4]]], dtype=np.float32)
    targets, tasks = np.array([0, 1, 2]), np.array([0, 0, 1])
    labels_of = np.array([[True, True, False], [False, False, True]])
    found = answers_by_mode(logits, targets, tasks, labels_of)
    np.testing.assert_array_equal(matrix_of(found["class_incremental"], tasks, 2), [[1, 0], [0.5, 1]])
    np.testing.assert_array_equal(matrix_of(found["task_incremental"], tasks, 2), [[1, nan], [1, 1]])


def test_orders_are_compared_with_chance() -> None:
    rng = np.random.default_rng(0)
    tasks = np.arange(400) % 2
    same_answers = (rng.random(400) < 0.7).astype(float)
    noisy = {name: np.where(rng.random(400) < 0.1, 1 - same_answers, same_answers) for name in ("a", "b", "again")}
    found = compare_orders({**noisy, "a": same_answers}, tasks, chosen="a", again="again", seed=0)
    apart = {"a": same_answers, "b": same_answers * (rng.random(400) < 0.6), "again": same_answers}
    clear = compare_orders(apart, tasks, chosen="a", again="again", seed=0)
    assert clear["mattered"] and clear["best"] == "a" and 0 < clear["low"] < clear["range"] < clear["high"]
    assert clear["range"] == pytest.approx((same_answers - apart["b"]).mean(), abs=1e-6)
    equal = compare_orders({"a": same_answers, "b": same_answers, "again": same_answers}, tasks, chosen="a",
                           again="again", seed=0)
    assert not equal["mattered"] and "not measurably" in equal["sentence"] and found["chance"] > 0


def test_other_orders_are_learned_and_told(bench: Bench) -> None:
    fitted = run(job_of(bench, "orders", TaskSequence(compare_orders=2), plan=HeadOnly(), epochs=1))
    told = fitted.artifacts["orders.json"]
    assert len(told["orders"]) == 3 and told["chosen"] == "one → two → three"
    assert fitted.summary["sequence"]["orders"] == told["sentence"]
    assert len(other_orders(("x", "y"), 5, 0)) == 1


def test_mistakes_are_told(bench: Bench) -> None:
    with pytest.raises(SpecError, match="the tasks are: one, two, three"):
        run(job_of(bench, "bad-order", TaskSequence(order=("one", "two"))))
    with pytest.raises(DataError, match=r"column 'domain', and data\.csv:2 .*no value there; the rows have: task"):
        run(job_of(bench, "bad-column", TaskSequence(by="domain")))
    with pytest.raises(SpecError, match="stand in no task, such as 'elk'"):
        run(job_of(bench, "bad-labels", TaskSequence(labels={"one": TASKS["one"], "two": TASKS["two"]})))
    with pytest.raises(SpecError, match=r"train\.keep"):
        run(job_of(bench, "bad-replay", TaskSequence(), replay=Replay(source="past")))


def test_a_division_by_label_is_the_division_by_column(bench: Bench) -> None:
    found = [run(job_of(bench, name, strategy, plan=HeadOnly(), epochs=1)) for name, strategy in
             (("by-column", TaskSequence()), ("by-label", TaskSequence(labels=TASKS)))]
    assert same(weights(found[0]), weights(found[1]))
    assert found[0].artifacts["matrix.json"] == found[1].artifacts["matrix.json"]


def test_parts_are_saved_with_the_model(bench: Bench, tmp_path: Path) -> None:
    from luthier.adapt.labelled import load_label_model, save_label_model

    fitted = run(job_of(bench, "by-label", TaskSequence(labels=TASKS), plan=HeadOnly(), epochs=1))
    save_label_model(fitted.model, tmp_path)
    assert json.loads((tmp_path / "network.json").read_text())["parts"] == {k: list(v) for k, v in TASKS.items()}
    again = load_label_model(tmp_path)
    assert again.parts == TASKS
    assert grown(again, ("ant", "new")).parts == {"one": ("ant",)}, "labels that are gone leave the parts"
