"""Laws of a search: no point twice, nothing lost by kill -9, budgets kept, the same seed gives the same search."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import GRID, toy

from luthier.errors import LuthierError, SpecError
from luthier.store import canonical
from luthier.tune.base import Tune
from luthier.tune.journal import Journal
from luthier.tune.seams import Outcome
from luthier.tune.search import search
from luthier.tune.space import build

ALL = {canonical({"a": a, "b": b}) for a, b in itertools.product(range(4), "xyz")}
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def texts(trials):
    return [canonical(trial.point) for trial in trials]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_is_the_product_of_its_values_each_once(tmp_path, workers):
    trials = toy(tmp_path, "grid", workers=workers, trials=0)
    assert sorted(texts(trials)) == sorted(ALL)
    assert {trial.state for trial in trials} == {"done"}
    assert sorted(map(int, (tmp_path / "calls.txt").read_text().split())) == list(range(12))


def test_the_order_of_a_grid_follows_from_the_seed(tmp_path):
    orders = [texts(toy(tmp_path / str(n), "grid", seed=seed)) for n, seed in enumerate((0, 0, 1))]
    assert orders[0] == orders[1] != orders[2]
    plain = texts(toy(tmp_path / "plain", {"kind": "grid", "shuffle": False}, space=GRID))
    assert plain == [canonical({"a": a, "b": b}) for a, b in itertools.product(range(4), "xyz")]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_the_same_seed_gives_the_same_search(tmp_path, kind):
    first, again, other = (texts(toy(tmp_path / str(n), kind, trials=12, seed=seed))
                           for n, seed in enumerate((3, 3, 4)))
    assert first == again != other


def test_parallel_random_search_tries_the_points_of_the_serial_one(tmp_path):
    assert texts(toy(tmp_path / "1", "random", trials=9)) == texts(toy(tmp_path / "2", "random", trials=9, workers=2))


@pytest.mark.parametrize("kind", ["random", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_no_searcher_repeats_a_point_and_all_end_with_a_finite_space(tmp_path, kind):
    trials = toy(tmp_path, kind, space={**GRID, "a": {"int": [0, 2]}}, trials=50)
    assert sorted(texts(trials)) == sorted(text for text in ALL if '"a":3' not in text)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_loses_no_trial_and_doubles_none(tmp_path, workers):
    """Killed again and again in the middle of trials: every point of the grid exactly once, finished ones kept."""
    script = str(Path(__file__).with_name("toy.py"))
    command = [sys.executable, script, str(tmp_path), "grid", str(workers), "0.15", "0"]
    calls, kept = tmp_path / "calls.txt", {}
    for kills in range(4):
        process = subprocess.Popen(command, env=ENV)
        begun = calls.read_text().count("\n") if calls.exists() else 0
        enough = begun + workers + 1  # so one has ended
        while kills < 3 and (calls.read_text().count("\n") if calls.exists() else 0) < enough:
            assert process.poll() is None
            time.sleep(0.02)
        if kills == 3:
            assert process.wait(60) == 0
            break
        os.kill(process.pid, signal.SIGKILL)  # the process alone: its workers must notice by themselves
        process.wait()
        time.sleep(0.3)
        done = {t.number: (canonical(t.point), t.value) for t in Journal(tmp_path).trials() if t.state == "done"}
        assert kept.items() <= done.items()
        kept = done
    trials = Journal(tmp_path).trials()
    assert kept
    assert sorted(texts(trials)) == sorted(ALL) and {trial.state for trial in trials} == {"done"}
    ends = [line for line in (tmp_path / "trials.jsonl").read_text().splitlines() if '"event": "end"' in line]
    assert len(ends) == 12
    assert len(calls.read_text().split()) <= 12 + 3 * workers


def test_half_a_line_of_a_killed_process_is_skipped(tmp_path):
    toy(tmp_path, "random", trials=3)
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"event": "start", "tri')
    trials = toy(tmp_path, "random", trials=5)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert Journal(tmp_path).trials() == trials


def test_a_finished_search_runs_nothing_and_a_larger_budget_goes_on(tmp_path):
    first = toy(tmp_path, "tpe", trials=5)
    size = (tmp_path / "trials.jsonl").stat().st_size
    assert toy(tmp_path, "tpe", trials=5) == first
    assert (tmp_path / "trials.jsonl").stat().st_size == size
    more = toy(tmp_path, "tpe", trials=7)
    assert more[:5] == first and len(more) == 7


def test_an_interrupted_search_tries_the_points_of_an_undisturbed_one(tmp_path):
    toy(tmp_path / "a", "tpe", trials=11)
    assert texts(toy(tmp_path / "a", "tpe", trials=14)) == texts(toy(tmp_path / "b", "tpe", trials=14))


def test_the_budget_in_minutes_is_kept_over_all_calls(tmp_path):
    began = time.monotonic()
    trials = toy(tmp_path, "random", trials=0, minutes=1 / 60, sleep=0.2)
    assert 3 <= len(trials) <= 6 and time.monotonic() - began < 3
    assert toy(tmp_path, "random", trials=0, minutes=1 / 60, sleep=0.2) == trials


def test_a_trial_that_runs_out_of_time_is_cut_and_continued_with_a_larger_budget(tmp_path):
    def slow(attempt):
        from luthier.tune.seams import Stopped

        for at in range(4):
            time.sleep(0.1)
            if attempt.report(at, 1.0):
                raise Stopped
        return 1.0

    spec = Tune(space={"a": {"range": [0, 1]}}, searcher="random", trials=10, minutes=0.6 / 60)
    space = build(spec.space, parse=lambda overrides: None)
    trials = search(slow, space, spec, folder=tmp_path)
    assert [trial.state for trial in trials] == ["done", "cut"]
    more = search(slow, space, spec.but(minutes=0, trials=3), folder=tmp_path)
    assert [trial.state for trial in more] == ["done"] * 3 and more[1].point == trials[1].point


@pytest.mark.slow
def test_a_trial_whose_process_dies_twice_fails_and_the_others_go_on(tmp_path):
    trials = toy(tmp_path, "grid", space={"a": {"int": [0, 2]}, "b": {"choice": ["x", "y"]}}, poison="x", workers=2,
                 trials=0)
    states = {canonical(trial.point): trial.state for trial in trials}
    assert len(states) == 6
    assert all(state == ("failed" if '"x"' in text else "done") for text, state in states.items())
    failed = next(trial for trial in trials if trial.state == "failed")
    assert failed.deaths == 2 and "signal 9" in failed.note


def test_failed_and_unmeasurable_trials_are_told_and_never_best(tmp_path):
    def shaky(attempt):
        if attempt.number == 1:
            raise LuthierError("diverged at update 3")
        return float("nan") if attempt.number == 2 else Outcome(float(attempt.number), {"n": attempt.number})

    spec = Tune(space={"a": {"range": [0, 1]}}, searcher="tpe", trials=12)
    trials = search(shaky, build(spec.space, parse=lambda overrides: None), spec, folder=tmp_path)
    assert [t.state for t in trials[:4]] == ["done", "failed", "failed", "done"]
    assert trials[1].note == "diverged at update 3" and "nan" in trials[2].note
    assert trials[3].facts == {"n": 3}


def test_a_search_whose_first_trials_all_fail_ends_and_can_be_tried_again(tmp_path):
    def broken(attempt):
        raise LuthierError("no such file: data.csv")

    spec = Tune(space={"a": {"range": [0, 1]}}, searcher="random", trials=9)
    space = build(spec.space, parse=lambda overrides: None)
    with pytest.raises(LuthierError, match=r"first 3 trials all failed.*data\.csv"):
        search(broken, space, spec, folder=tmp_path)
    assert len(Journal(tmp_path).trials()) == 3
    trials = search(
        lambda attempt: 1.0, space, spec, folder=tmp_path)
    assert len(trials) == 9 and {trial.state for trial in trials} == {"done"}


def test_what_a_searcher_cannot_search_is_refused_before_any_trial(tmp_path):
    with pytest.raises(SpecError, match=r"add points .* to a, b"):
        toy(tmp_path, "grid", space={"a": {"range": [0, 1]}, "b": {"log": [1, 2]}})
    with pytest.raises(SpecError, match="budget"):
        toy(tmp_path, "random", trials=0)
    assert not (tmp_path / "calls.txt").exists()
