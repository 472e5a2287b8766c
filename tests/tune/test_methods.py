"""Laws of searchers and pruners: they pass the kit, and have their effect on problems whose answer is known."""

import math
import random
import statistics

import pytest

from luthier.errors import LuthierError, ModelError, SpecError
from luthier.testing import check_spec
from luthier.tune.base import Tune
from luthier.tune.range_test import RangeTest, propose_rate
from luthier.tune.result import FEWEST, best_so_far, importance, summarised
from luthier.tune.seams import PRUNERS, SEARCHERS, Stopped, best_of
from luthier.tune.search import search
from luthier.tune.space import build

FIVE = {f"x{i}": {"range": [0, 1]} for i in range(4)} | {"rate": {"log": [1e-5, 1]}}


def run(folder, objective, space, better="lower", **fields):
    spec = Tune(space=space, **fields)
    built = build(spec.space, parse=lambda overrides: None)
    return built, search(objective, built, spec, folder=folder, better=better)


@pytest.mark.parametrize("seam", [SEARCHERS, PRUNERS], ids=lambda seam: seam.name)
def test_every_method_passes_the_kit(seam):
    for cls in seam.kinds().values():
        check_spec(seam, cls())


def bowl(attempt) -> float:
    """5 dimensions, best at x = 0.3 and rate = 1e-3, and not equally sensitive to all of them."""
    near = [(attempt.point[f"x{i}"] - 0.3) ** 2 * (4 - i) for i in range(4)]
    return math.log1p(sum(near) + (math.log10(attempt.point["rate"]) + 3) ** 2)


def test_tpe_is_better_than_random_search_on_a_five_dimensional_bowl(tmp_path):
    """40 trials, 5 seeds, paired: the same first points."""
    gains = []
    for seed in range(5):
        found = {kind: best_of(run(tmp_path / f"{kind}{seed}", bowl, FIVE, searcher=kind, trials=40, seed=seed)[1],
                               "lower").value for kind in ("tpe", "random")}
        gains.append(found["random"] - found["tpe"])
    assert statistics.mean(gains) > 0 and sum(gain > 0 for gain in gains) >= 4, gains


def test_searches_start_with_the_same_points_for_the_same_seed(tmp_path):
    tpe = run(tmp_path / "a", bowl, FIVE, searcher="tpe", trials=8, seed=2)[1]
    chance = run(tmp_path / "b", bowl, FIVE, searcher="random", trials=8, seed=2)[1]
    assert [t.point for t in tpe] == [t.point for t in chance]


def test_higher_is_better_is_the_mirror_image(tmp_path):
    low = run(tmp_path / "a", bowl, FIVE, searcher="tpe", trials=16)[1]
    high = run(tmp_path / "b", lambda attempt: -bowl(attempt), FIVE, searcher="tpe", trials=16, better="higher")[1]
    assert [t.point for t in low] == [t.point for t in high]
    assert best_of(low, "lower").number == best_of(high, "higher").number


def test_tpe_searches_fields_that_exist_only_sometimes(tmp_path):
    def parse(overrides):
        if isinstance(overrides.get("plan"), dict) and overrides["plan"]["kind"] == "a":
            raise SpecError("plan.decay: unknown field")

    spec = Tune(space={"plan": {"choice": ["a", "b"]}, "plan.decay": {"range": [0, 1]}}, trials=30)
    space = build(spec.space, parse=parse)
    trials = search(lambda attempt: 1.0 if attempt.point["plan"] == "a" else (attempt.point["plan.decay"] - 0.6) ** 2,
                    space, spec, folder=tmp_path)
    best = best_of(trials, "lower")
    assert best.point["plan"] == "b" and abs(best.point["plan.decay"] - 0.6) < 0.1
    assert all(("plan.decay" in trial.point) == (trial.point["plan"] == "b") for trial in trials)
    with pytest.raises(SpecError, match=r"gp cannot search .*plan\.decay"):
        search(lambda attempt: 0.0, space, spec.but(searcher="gp"), folder=tmp_path / "gp")


@pytest.mark.slow
def test_gp_is_near_the_optimum_of_a_smooth_function_in_few_trials(tmp_path):
    found = run(tmp_path, lambda a: (a.point["x"] - 0.37) ** 2 + (a.point["y"] - 0.6) ** 2,
                {"x": {"range": [0, 1]}, "y": {"range": [0, 1]}}, searcher={"kind": "gp", "exact": True}, trials=14)[1]
    assert best_of(found, "lower").value < 0.005


def falling(attempt) -> float:
    """Nine reports of a curve that ends at x."""
    for step in range(1, 10):
        if attempt.report(step * 10, attempt.point["x"] + 1 / step):
            raise Stopped
    return attempt.point["x"]


@pytest.mark.parametrize("pruner, spared", [({"kind": "median", "warmup": 3}, 3),
                                            ({"kind": "hyperband", "warmup": 2}, 1)])
def test_pruners_stop_bad_trials_early_and_keep_the_best(tmp_path, pruner, spared):
    trials = run(tmp_path / "a", falling, {"x": {"range": [0, 1]}}, searcher="random", trials=30, pruner=pruner)[1]
    full = run(tmp_path / "b", falling, {"x": {"range": [0, 1]}}, searcher="random", trials=30)[1]
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert len(pruned) >= 8
    assert min(len(trial.reports) for trial in pruned) > spared
    assert all(trial.state == "done" for trial in trials[:1])
    assert best_of(trials, "lower").value <= sorted(trial.value for trial in full)[2]
    kept = [trial.point["x"] for trial in trials if trial.state == "done"]
    assert statistics.mean(kept) < statistics.mean(trial.point["x"] for trial in pruned)
    assert sum(len(trial.reports) for trial in trials) < 0.8 * sum(len(trial.reports) for trial in full)


def test_hyperband_repeats_no_points_between_its_brackets(tmp_path):
    trials = run(tmp_path, falling, {"x": {"range": [0, 1]}}, searcher="tpe", trials=25, pruner="hyperband")[1]
    assert len({trial.point["x"] for trial in trials}) == 25


def test_a_killed_trial_keeps_what_the_pruner_knew(tmp_path):
    """The memory of successive halving is in the journal, so a second process decides as the first would."""
    from luthier.tune.journal import Journal

    trials = run(tmp_path, falling, {"x": {"range": [0, 1]}}, searcher="random", trials=10, pruner="hyperband")[1]
    assert any(trial.memory for trial in trials)
    assert [trial.memory for trial in Journal(tmp_path).trials()] == [trial.memory for trial in trials]


def test_importance_finds_the_field_that_matters_and_says_when_trials_are_few(tmp_path):
    space, trials = run(tmp_path, lambda a: abs(a.point["x"] - 0.5) + 0.01 * a.point["y"],
                        {"x": {"range": [0, 1]}, "y": {"range": [0, 1]}}, searcher="random", trials=30)
    shares, note = importance(space, trials, "lower")
    assert shares["x"] > 0.8 and not note
    assert "indication" in importance(space, trials[:10], "lower")[1]
    shares, note = importance(space, trials[:FEWEST - 1], "lower")
    assert not shares and "too few" in note


def test_the_summary_says_what_random_search_found_with_the_same_seed(tmp_path):
    space, tpe = run(tmp_path / "a", bowl, FIVE, searcher="tpe", trials=30)
    chance = run(tmp_path / "b", bowl, FIVE, searcher="random", trials=30)[1]
    result = summarised(space, tpe, "lower", compared=chance)
    assert result["best"]["value"] == min(trial.value for trial in tpe) == result["best_so_far"][-1]
    assert result["equals"] == 0
    assert result["random"]["best"]["value"] == min(trial.value for trial in chance)
    assert ("ahead" in result["random"]["sentence"]) == (result["best"]["value"] < result["random"]["best"]["value"])
    assert best_so_far(tpe, "lower") == sorted(best_so_far(tpe, "lower"), reverse=True)


def test_points_that_the_search_has_tried_are_taken_over_by_the_comparison(tmp_path):
    from luthier.store import canonical

    space, tpe = run(tmp_path / "a", bowl, FIVE, searcher="tpe", trials=8)
    calls = []
    spec = Tune(space=FIVE, searcher="random", trials=10)
    trials = search(lambda attempt: calls.append(attempt.number) or bowl(attempt), space, spec, folder=tmp_path / "b",
                    known={canonical(trial.point): trial for trial in tpe})
    assert calls == [8, 9] and [t.value for t in trials[:8]] == [t.value for t in tpe]


def range_losses(best: float, spec: RangeTest, noise: float, seed: int = 0):
    """A quadratic whose updates help up to a rate and explode beyond."""
    chance, state = random.Random(seed), {"w": 1.0}

    def update(rate: float) -> float:
        loss = 1 + state["w"] ** 2 + chance.gauss(0, noise)
        state["w"] *= 1 - rate / best * 0.5
        return loss

    return spec.run(update)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_range_test_proposes_a_rate_that_learns_and_does_not_explode(noise):
    found = range_losses(1e-3, RangeTest(low=1e-6, high=10), noise)
    assert 2e-5 < found.proposed < 2e-3
    assert len(found.rates) < 100 and found.losses[-1] > found.losses[0]
    other = range_losses(1e-1, RangeTest(low=1e-6, high=10), noise)
    assert 30 < other.proposed / found.proposed < 300


def test_a_range_test_that_shows_nothing_says_so():
    chance = random.Random(1)
    with pytest.raises(ModelError, match="never lowered"):
        propose_rate(RangeTest().rates(), [2 + chance.gauss(0, 0.1) for _ in range(100)])
    with pytest.raises(ModelError, match="needs 10"):
        propose_rate([1e-3], [1.0])
    assert issubclass(ModelError, LuthierError)
