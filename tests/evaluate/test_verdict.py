"""The verdict on constructed results: every choice, every reason against, and the honest 'too small'."""

from __future__ import annotations

import pytest

from luthier.evaluate.compare import Measured
from luthier.evaluate.verdict import ORDER, PAIRS, Evidence, changes, decide


def build(values: dict[str, float], *, half: float = 0.04, n: int = 100, better: str = "higher",
          wide: dict | None = None, **more) -> Evidence:
    """Evidence whose differences are those of the values, each ± `half` (or `wide[pair]`)."""
    gaps = {}
    for mine, theirs in PAIRS:
        if mine in values and theirs in values:
            gap, side = values[mine] - values[theirs], (wide or {}).get((mine, theirs), half)
            gaps[mine, theirs] = Measured(gap, gap - side, gap + side, n)
    told = {name: Measured(value, value - half, value + half, n) for name, value in values.items()}
    return Evidence(label="word overlap", better=better, values=told, differences=gaps, num_questions=n,
                    min_questions=20, worthwhile=0.05, **more)


def of(base: float, retrieval: float, tuned: float, both: float) -> dict[str, float]:
    return dict(zip(ORDER, (base, retrieval, tuned, both)))


@pytest.mark.parametrize(("values", "choice", "begins"), [
    (of(0.2, 0.2, 0.2, 0.2), "base", "Do not tune: no other system gives a gain worth having"),
    (of(0.2, 0.1, 0.1, 0.1), "base", "Do not tune"),
    (of(0.2, 0.5, 0.3, 0.5), "retrieval", "Use retrieval: it beats the base model"),
    (of(0.2, 0.2, 0.5, 0.5), "tuned", "Release the tuned model: it beats the base model"),
    (of(0.2, 0.4, 0.4, 0.4), "retrieval", "Use retrieval"),  # a tie goes to the simpler system
    (of(0.2, 0.4, 0.6, 0.6), "tuned", "Release the tuned model"),
    (of(0.2, 0.4, 0.5, 0.7), "tuned_retrieval", "Combine: release the tuned model with retrieval"),
    (of(0.2, 0.2, 0.2, 0.4), "tuned_retrieval", "Combine"),
    (of(0.2, 0.6, 0.1, 0.5), "retrieval", "Use retrieval"),
])
def test_choice_follows_the_intervals(values: dict[str, float], choice: str, begins: str) -> None:
    verdict = decide(build(values, half=0.03))
    assert verdict.choice == choice and verdict.sentence.startswith(begins), verdict.sentence
    assert verdict.conclusive and verdict.needed_questions is None
    assert verdict.sentence.count(".") >= 1 and verdict.sentence.endswith(".")
    assert len(verdict.reasons) >= 3


def test_a_sure_gain_that_is_not_worth_having_wins_nothing() -> None:
    verdict = decide(build({"base": 0.2, "tuned": 0.22}, half=0.01))
    assert verdict.choice == "base" and verdict.conclusive
    assert "surely less than the 0.05 that is worth having" in verdict.reasons[0]
    assert decide(build({"base": 0.2, "tuned": 0.245}, half=0.01)).choice == "tuned"  # 0.055 is possible


def test_lower_is_better_for_losses() -> None:
    verdict = decide(build(of(2.5, 2.5, 1.9, 1.9), better="lower"))
    assert verdict.choice == "tuned"
    assert decide(build(of(1.9, 2.5, 2.5, 2.5), better="lower")).choice == "base"


def test_a_win_needs_an_interval_that_excludes_zero() -> None:
    just = decide(build({"base": 0.2, "tuned": 0.241}, half=0.04))
    assert just.choice == "tuned"
    not_quite = decide(build({"base": 0.2, "tuned": 0.239}, half=0.04))
    assert not_quite.choice == "base" and not not_quite.conclusive
    assert "too small to tell whether the tuned model is better" in not_quite.sentence


def test_a_certain_tie_is_conclusive_an_uncertain_one_asks_for_more_questions() -> None:
    certain = decide(build(of(0.2, 0.2, 0.2, 0.2), half=0.03))
    assert certain.conclusive and "too small" not in certain.sentence
    unsure = decide(build(of(0.2, 0.2, 0.2, 0.2), half=0.15))
    assert not unsure.conclusive and unsure.choice == "base"
    # se = 0.15 / 1.96, n (2.8016 se / 0.05)^2 = 1838.7
    assert unsure.needed_questions == 1839 and "1,839 test questions" in unsure.sentence


def test_only_rivals_of_the_winner_can_leave_it_open() -> None:
    wide = {("retrieval", "base"): 0.3}  # but surely worse than the tuned model
    verdict = decide(build(of(0.2, 0.2, 0.5, 0.5), half=0.03, wide=wide))
    assert verdict.choice == "tuned" and verdict.conclusive


def test_a_simpler_system_that_may_do_as_well_keeps_it_open() -> None:
    wide = {("retrieval", "base"): 0.1, ("tuned_retrieval", "retrieval"): 0.1}
    verdict = decide(build(of(0.2, 0.23, 0.2, 0.28), half=0.03, wide=wide))
    assert verdict.choice == "tuned_retrieval" and not verdict.conclusive
    assert "too small to tell whether the base model with retrieval would do as well" in verdict.sentence
    assert verdict.needed_questions and verdict.needed_questions > 100


def test_a_simpler_system_that_is_certainly_better_than_the_winner_takes_it() -> None:
    wide = {("retrieval", "base"): 0.5}
    verdict = decide(build(of(0.2, 0.6, 0.4, 0.4), half=0.03, wide=wide))
    assert verdict.choice == "retrieval"


def test_too_few_questions_decide_nothing() -> None:
    verdict = decide(build(of(0.1, 0.5, 0.7, 0.9), half=0.01, n=8))
    assert verdict.choice == "base" and not verdict.conclusive
    assert verdict.sentence == ("The test is too small to tell: it has 8 questions, and about 20 are needed; "
                                "until then keep the base model.")


def test_lost_general_skills_rule_every_tuned_system_out() -> None:
    retention = Measured(0.12, 0.1, 0.14, 100)
    verdict = decide(build(of(0.2, 0.4, 0.7, 0.8), retention=retention))
    assert verdict.choice == "retrieval" and set(verdict.ruled_out) == {"tuned", "tuned_retrieval"}
    assert "the tuned systems are ruled out" in verdict.sentence and "12.0\u00a0%" in verdict.sentence
    verdict = decide(build({"base": 0.2, "tuned": 0.7}, retention=retention))
    assert verdict.choice == "base" and verdict.conclusive
    assert verdict.sentence.startswith("Do not tune: the tuned model is ruled out, because tuning damaged")
    within = decide(build(of(0.2, 0.4, 0.7, 0.7), retention=Measured(0.03, 0.0, 0.06, 100)))
    assert within.choice == "tuned" and any("6.0\u00a0% cannot be excluded" in reason for reason in within.reasons)


def test_rising_wrong_refusals_rule_that_system_out() -> None:
    refusals = {"tuned": Measured(0.3, 0.2, 0.4, 90), "tuned_retrieval": Measured(0.02, -0.02, 0.06, 90)}
    verdict = decide(build(of(0.2, 0.3, 0.6, 0.5), wrong_refusals=refusals))
    assert verdict.choice == "tuned_retrieval" and list(verdict.ruled_out) == ["tuned"]
    assert "30\u00a0% of the answerable questions end in a wrong refusal" in verdict.ruled_out["tuned"]
    unsure = decide(build(of(0.2, 0.2, 0.6, 0.6), wrong_refusals={"tuned": Measured(0.15, -0.05, 0.35, 10)}))
    assert unsure.choice == "tuned"
    small = decide(build(of(0.2, 0.2, 0.6, 0.6), wrong_refusals={"tuned": Measured(0.05, 0.01, 0.09, 90)}))
    assert small.choice == "tuned" and any("within the limit" in reason for reason in small.reasons)


def test_systems_that_were_not_measured_are_not_named() -> None:
    assert decide(build({"base": 0.2})).sentence == "Keep the base model: there is nothing to compare it with."
    verdict = decide(build({"base": 0.2, "retrieval": 0.2}, half=0.03))
    assert verdict.sentence == "Keep the base model: retrieval gives no gain worth having on word overlap."
    verdict = decide(build({"base": 0.2, "tuned": 0.2}, half=0.03))
    assert verdict.sentence == "Do not tune: tuning gives no gain worth having on word overlap."


def test_warnings_stand_among_the_reasons() -> None:
    assert "leak" in decide(build(of(0.2, 0.2, 0.2, 0.2), warnings=["leak"])).reasons


def test_changes_sort_by_the_interval_and_the_direction_of_the_metric() -> None:
    up, flat = Measured(0.2, 0.1, 0.3, 40), Measured(0.2, -0.1, 0.5, 40)
    value, before = Measured(0.4, 0.3, 0.5, 40), Measured(0.2, 0.1, 0.3, 40)
    pair = ("tuned", "base")
    assert changes("F1", "higher", pair, up, value, before)[0] == "improvements"
    assert changes("Loss", "lower", pair, up, value, before)[0] == "regressions"
    group, line = changes("F1", "higher", pair, flat, value, before)
    assert group == "no_change"
    assert line == ("F1, the tuned model against the base model: 0.200 → 0.400 (+0.200; 95 % interval −0.100 to "
                    "+0.500; n = 40)")
