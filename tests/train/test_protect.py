"""Laws of choosing the strength: who judges, what is kept, kills, and that the choice is the better model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from continual_kit import BOTH, OLD, Sequence2, accuracy, frozen, texts
from fit_kit import Killed, kill_at, same, weights
from pydantic import ValidationError

from luthier.errors import DataError, ModelError, SpecError
from luthier.testing import check_strategy
from luthier.train.fit import Diverged
from luthier.train.keeps.balanced import Balanced
from luthier.train.labelled.base import Fitted, Job
from luthier.train.labelled.fit import fit_once
from luthier.train.past import FOLDER
from luthier.train.regularizers.dark import DarkReplay
from luthier.train.regularizers.l2sp import L2SP
from luthier.train.regularizers.lwf import LearningWithoutForgetting as Lwf
from luthier.train.replay import Replay
from luthier.train.strategies.protect import Protect, held_back, penalty_to_loss

REPLAY = Replay(source="past", share=0.25)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Sequence2:
    return Sequence2(tmp_path_factory.mktemp("protect"), keep=Balanced(size=40))


def job(two: Sequence2, name: str, **spec: Any) -> Job:
    return two.job(name, **{"regularizers": (Lwf(strength=1.0),), "validate_every": 20, **spec})


def test_the_spec_keeps_the_laws() -> None:
    check_strategy(Protect(strengths=(0.0, 2.0), held_back=0.4, weight_new=0.3))
    for wrong in ((1.0, 1.0), (-1.0,), ()):
        with pytest.raises(ValidationError):
            Protect(strengths=wrong)


def test_rows_are_held_back_by_their_id_alone(two: Sequence2) -> None:
    rows = texts(400, OLD, first=9000)
    held = held_back(rows, 0.3)
    assert 90 < len(held) < 150
    assert {e.id for e in held_back(rows[::-1], 0.3)} == {e.id for e in held}
    assert {e.id for e in held_back(rows[:50], 0.3)} == {e.id for e in held} & {e.id for e in rows[:50]}
    assert {e.id for e in held} < {e.id for e in held_back(rows, 0.5)}
    assert len(held_back(rows[:1], 0.001)) == 1


class Recorded:
    """A fit that only writes down its job: figures by multiplier stand in for training."""

    def __init__(self, two: Sequence2, figures: dict[float, tuple[float, float]]):
        self.two, self.figures, self.jobs = two, figures, []  # type: ignore[var-annotated]

    def __call__(self, one: Job) -> Fitted:
        self.jobs.append(one)
        one.folder.mkdir(parents=True, exist_ok=True)
        model = frozen(self.two.before.model) if one.past is None else one.open(0)
        return Fitted(model=model, value=self.figures[one.spec.regularizers[0].strength][0], loss=0.0,  # type: ignore[attr-defined]
                      summary={"steps": 1})


def choice(two: Sequence2, monkeypatch: pytest.MonkeyPatch, figures: dict[float, tuple[float, float]], name: str,
           **changes: Any) -> tuple[dict[str, Any], Recorded]:
    fit = Recorded(two, figures)
    calls = iter([figures[key][1] for key in sorted(figures)])
    monkeypatch.setattr("luthier.train.strategies.protect.score",
                        lambda model, rows, one: next(calls, 0.99))  # the last call is the earlier model
    found = Protect(strengths=tuple(figures), **changes).run(fit, job(two, name))
    return found.artifacts["strengths.json"], fit


def test_the_best_mean_is_kept_and_the_weaker_where_equal(two: Sequence2, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {0.0: (0.9, 0.1), 1.0: (0.8, 0.6), 10.0: (0.5, 0.9), 100.0: (0.2, 0.95)}
    report, _ = choice(two, monkeypatch, figures, "even")
    assert report["chosen"] == 1.0 and report["old_before"] == 0.99, "10 has the same mean"
    assert [(one["times"], one["new"], one["old"]) for one in report["strengths"]] == [
        (times, *pair) for times, pair in figures.items()]
    assert choice(two, monkeypatch, figures, "new", weight_new=1.0)[0]["chosen"] == 0.0
    old, _ = choice(two, monkeypatch, figures, "old", weight_new=0.0)
    assert old["chosen"] == 100.0 and "largest that was tried" in old["sentence"]


def test_every_strength_is_a_fit_of_its_own_and_held_back_rows_are_never_replayed(
        two: Sequence2, monkeypatch: pytest.MonkeyPatch) -> None:
    _, fit = choice(two, monkeypatch, {0.0: (0.1, 0.1), 0.5: (0.1, 0.1), 2.0: (0.1, 0.1)}, "jobs")
    assert [one.spec.regularizers[0].strength for one in fit.jobs] == [0.0, 0.5, 2.0]
    assert len({one.folder for one in fit.jobs}) == 3 and all(one.keep for one in fit.jobs)
    held = {row.id for row in held_back(two.past.rows, 0.3)}
    fit = Recorded(two, {1.0: (0.5, 0.5)})
    Protect(strengths=(1.0,)).run(fit, job(two, "replayed", replay=REPLAY))
    assert held and {row.id for row in fit.jobs[0].replay} == {row.id for row in two.past.rows} - held
    assert len(fit.jobs[0].past.rows) == len(two.past.rows), "they stay in the store for the next training"


def test_a_strength_that_diverges_is_left_out(two: Sequence2) -> None:
    def fit(one: Job) -> Fitted:
        if one.spec.regularizers[0].strength > 1:  # type: ignore[attr-defined]
            raise Diverged("training diverged at update 3")
        one.folder.mkdir(parents=True, exist_ok=True)
        return Fitted(model=one.open(0), value=0.5, loss=0.0, summary={"steps": 1})

    report = Protect(strengths=(1.0, 10.0)).run(fit, job(two, "steep")).artifacts["strengths.json"]
    assert report["chosen"] == 1.0 and "diverged at update 3" in report["strengths"][1]["diverged"]
    with pytest.raises(ModelError, match=r"diverged with every strength"):
        Protect(strengths=(10.0, 100.0)).run(fit, job(two, "steeper"))


def test_penalty_and_loss_are_compared_over_the_last_tenth(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    assert penalty_to_loss(file) is None
    rows = [{"loss": 100.0, "taught": 50.0, "penalty": 9.0}] * 18 + [
        {"loss": 1.5, "taught": 0.5, "penalty": 0.1}, {"loss": 2.5, "taught": 0.5, "penalty": 0.4}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert penalty_to_loss(file) == pytest.approx((0.6 + 0.9) / (1.0 + 2.0))


def test_it_finds_the_strength_that_keeps_both(two: Sequence2) -> None:
    """Effect: with real fits, the chosen model knows more of old and new test rows together than the unprotected one,
    and what is chosen is what was reported."""
    one = job(two, "real", regularizers=(Lwf(strength=1.0), L2SP(strength=1e-4)), keep=Balanced(size=40))
    found = Protect(strengths=(0.0, 0.1, 5.0)).run(fit_once, one)
    report = found.artifacts["strengths.json"]
    none, weak, strong = report["strengths"]
    assert [each["times"] for each in report["strengths"]] == [0.0, 0.1, 5.0]
    assert none["penalty_to_loss"] == 0 < weak["penalty_to_loss"] and strong["penalty_to_loss"] > 0
    assert strong["strengths"] == {"lwf": 5.0, "l2sp": pytest.approx(5e-4)}
    assert strong["old"] > none["old"] + 0.3, report
    chosen = max(report["strengths"], key=lambda each: each["mean"])
    assert report["chosen"] == chosen["times"] > 0, report
    assert found.value == chosen["new"] and chosen["mean"] == pytest.approx((chosen["new"] + chosen["old"]) / 2)
    held = held_back(two.past.rows, 0.3)
    assert chosen["old"] == pytest.approx(accuracy(found.model, held)) and report["n_old"] == len(held)
    naive = fit_once(job(two, "naive", regularizers=()))

    def both(model: Any) -> float:
        return float(np.mean([accuracy(model, two.old_held), accuracy(model, two.new_held)]))

    assert both(found.model) > both(naive.model) + 0.1
    assert (one.folder / "contract.json").is_file()
    assert found.memory is not None and len(found.memory["rows"]) == 40
    assert found.model.labels == BOTH
    for file in found.scratch:
        assert file.is_file()
    assert (one.folder / "strength-2" / FOLDER / "rows.jsonl") in found.scratch


def test_a_killed_choice_goes_on_where_it_was(two: Sequence2) -> None:
    spec: dict[str, Any] = {"max_steps": 6, "checkpoint_every_s": 1e-9, "replay": REPLAY,
                            "regularizers": (DarkReplay(),)}
    strategy = Protect(strengths=(0.0, 1.0))
    calm = strategy.run(fit_once, job(two, "calm", **spec))
    fits: list[str] = []

    def counted(one: Job) -> Fitted:
        fits.append(one.note)
        return fit_once(one.but(watch=kill_at(4) if fits.count("strength × 1") == 1 else None))

    with pytest.raises(Killed):
        strategy.run(counted, job(two, "killed", **spec))
    again = strategy.run(counted, job(two, "killed", **spec))
    assert fits == ["strength × 0", "strength × 1"] * 2
    assert same(weights(calm), weights(again))
    assert calm.artifacts["strengths.json"] == again.artifacts["strengths.json"]


def test_what_cannot_be_chosen_is_refused(two: Sequence2) -> None:
    def run(one: Job) -> None:
        Protect(strengths=(1.0,)).run(fit_once, one)

    with pytest.raises(SpecError, match=r"chooses the strength of train\.regularizers, and none is named"):
        run(job(two, "none", regularizers=()))
    with pytest.raises(DataError, match="judges what was learned on validation rows, and there are none"):
        run(job(two, "blind").but(validation=()))
    with pytest.raises(DataError, match=r"it stored none of these labels; train it again with train\.keep"):
        run(job(two, "empty").but(past=two.past.but(rows=())))
    other = [replace(row, labels=("fox",)) for row in two.past.rows]
    with pytest.raises(DataError, match="it stored none of these labels"):
        run(job(two, "strange").but(past=two.past.but(rows=other)))


def test_a_first_training_is_run_once(two: Sequence2) -> None:
    fit = Recorded(two, {1.0: (0.5, 0.5)})
    one = job(two, "first").but(past=None, replay=[])
    found = Protect().run(fit, one)
    assert fit.jobs == [one] and "strengths.json" not in found.artifacts
