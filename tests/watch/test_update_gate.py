"""Laws of the update's gate: what is surely lost is refused, what may be lost is asked; every check has its numbers."""

import pytest

from luthier.project.updating import UpdateGate
from luthier.watch.gate import judge

METRIC = {"accuracy": {"label": "Accuracy", "better": "higher", "relative": False}}
LOSS = {"answer_loss": {"label": "Answer loss", "better": "lower", "relative": True}}


def part(value, low, high, n=50, champion=0.9):
    return {"n": n, "metrics": {"accuracy": {
        "champion": {"value": champion}, "challenger": {"value": champion + value},
        "difference": {"value": value, "low": low, "high": high, "n": n}}}}


NONE = {"n": 0, "metrics": {}}


def compared(old, new=NONE, **more):
    return {"metric": "accuracy", "metrics": METRIC, "sets": {"old": old, "new": new}, "batches": ["first data"],
            **more}


def outcome(found, name):
    return next(check.outcome for check in found.checks if check.name == name)


@pytest.mark.parametrize(("difference", "expected"), [
    ((0.0, 0.0, 0.0), "passed"),
    ((0.03, -0.05, 0.1), "passed"),  # the score did not fall
    ((-0.01, -0.015, -0.005), "passed"),  # it surely fell, by less than is allowed
    ((-0.1, -0.15, -0.05), "failed"),
    ((-0.03, -0.05, -0.01), "failed"),  # surely fell, and by more than is allowed
    ((-0.01, -0.06, 0.04), "unsure"),
    ((-0.05, -0.12, 0.02), "unsure"),
    ((-0.05, None, None), "unsure"),
])
def test_old_rows(difference, expected):
    found = judge(compared(part(*difference)), UpdateGate(max_loss=0.02))
    assert outcome(found, "max_loss") == expected
    assert found.verdict == {"passed": "promote", "failed": "refuse", "unsure": "ask"}[expected]
    sentence = found.checks[0].sentence
    assert "n = 50" in sentence and f"{0.9 + difference[0]:.3f}" in sentence and "0.02" in sentence


def test_what_unsure_means_is_a_setting():
    doubt = compared(part(-0.01, -0.06, 0.04))
    assert judge(doubt, UpdateGate(unsure="refuse")).verdict == "refuse"
    assert judge(doubt, UpdateGate(unsure="promote")).verdict == "promote"
    assert judge(compared(part(0, 0, 0)), UpdateGate(approval="required")).verdict == "ask"
    assert judge(compared(part(-0.2, -0.3, -0.1)), UpdateGate(unsure="promote")).verdict == "refuse"


def test_new_rows_must_not_be_answered_worse():
    fine = part(0, 0, 0)
    assert judge(compared(fine, part(-0.2, -0.3, -0.1)), UpdateGate()).verdict == "refuse"
    assert judge(compared(fine, part(0.3, 0.1, 0.5)), UpdateGate()).verdict == "promote"
    assert outcome(judge(compared(fine), UpdateGate()), "max_new_loss") == "not applicable"


def test_one_earlier_data_may_not_be_lost_while_the_others_gain():
    sets = {"old": part(0.0, -0.02, 0.02), "new": NONE, "first data": part(0.1, 0.05, 0.15),
            "update 1": part(-0.3, -0.4, -0.2)}
    found = judge({**compared(NONE), "sets": sets, "batches": ["first data", "update 1", "update 2"]}, UpdateGate())
    assert found.verdict == "refuse" and [check.name for check in found.reasons] == ["update 1"]


def test_a_loss_is_better_when_lower_and_its_limit_is_relative():
    def text(value, low, high):
        gap = {"champion": {"value": 2.0}, "challenger": {"value": 2 * (1 + value)},
               "difference": {"value": value, "low": low, "high": high, "n": 9}}
        return {"metric": "answer_loss", "metrics": LOSS, "batches": ["first data"],
                "sets": {"old": {"n": 9, "metrics": {"answer_loss": gap}}, "new": NONE}}

    assert judge(text(-0.1, -0.2, -0.05), UpdateGate()).verdict == "promote"
    assert judge(text(0.1, 0.05, 0.15), UpdateGate()).verdict == "refuse"
    assert "%" in judge(text(0.1, 0.05, 0.15), UpdateGate()).checks[0].sentence


ROWS = [{"where": "a.csv:3", "label": "x", "champion": "y", "probability": 0.99}]


@pytest.mark.parametrize(("against", "expected"), [(18, "failed"), (1, "passed"), (8, "unsure")])
def test_labels_that_a_sure_model_contradicts(against, expected):
    from luthier.evaluate.compare import wilson

    low, high = wilson(against / 20, 20)
    told = {"n": 30, "sure": 20, "contradicted": against, "share": against / 20, "low": low, "high": high,
            "rows": ROWS, "agreement": None}
    assert outcome(judge(compared(part(0, 0, 0), contradicted=told), UpdateGate()), "max_contradicted") == expected
    off = judge(compared(part(0, 0, 0), contradicted=told), UpdateGate(max_contradicted=None))
    assert outcome(off, "max_contradicted") == "not applicable"


@pytest.mark.parametrize(("right", "expected"), [(3, "failed"), (35, "passed"), (14, "unsure")])
def test_labels_that_an_unsure_model_seldom_agrees_with(right, expected):
    from luthier.watch.compare_labels import fall

    told = {"n": 60, "sure": 2, "contradicted": 2, "share": 1.0, "low": 0.3, "high": 1.0, "rows": ROWS,
            "agreement": fall(24, 40, right, 60)}
    found = judge(compared(part(0, 0, 0), contradicted=told), UpdateGate())
    assert outcome(found, "max_contradicted") == expected
    nothing = {"n": 0, "sure": 0, "rows": [], "agreement": None}
    assert outcome(judge(compared(part(0, 0, 0), contradicted=nothing), UpdateGate()),
                   "max_contradicted") == "not applicable"


def test_the_interval_of_a_fall_is_newcombes():
    from luthier.watch.compare_labels import fall

    found = fall(56, 70, 48, 80)  # Newcombe (1998), table II, example (a), method 10
    assert (round(found["fall"], 4), round(found["low"], 4), round(found["high"], 4)) == (0.2, 0.0524, 0.3339)


@pytest.mark.parametrize(("rise", "low", "high", "expected"), [
    (0.01, -0.01, 0.03, "passed"), (0.1, 0.05, 0.15, "failed"), (0.05, -0.01, 0.1, "unsure")])
def test_general_skills(rise, low, high, expected):
    found = judge(compared(part(0, 0, 0), retention={"token_loss": {
        "base": 2.0, "tuned": 2.0 * (1 + rise), "relative_rise": rise, "low": low, "high": high, "n": 40}}),
        UpdateGate())
    assert outcome(found, "max_retention_rise") == expected
