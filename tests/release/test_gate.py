"""Laws of the gate: each field is honoured, what was not measured fails, and every check shows its figures."""

import copy

import pytest

from luthier.release.gate import Gate, failed


def report(**changes):
    """A report in which the tuned model passes every check with room to spare."""
    value = lambda mean, n=40: {"value": mean, "low": mean - 0.05, "high": mean + 0.05, "n": n}  # noqa: E731
    found = {
        "verdict": {"choice": "tuned", "sentence": "Release the tuned model."}, "metric": "token_f1",
        "test": {"num_questions": 40, "num_unanswerable": 4, "disjoint": "document"},
        "systems": {
            "base": {"metrics": {"token_f1": value(0.20), "refused_wrongly": value(0.05)}},
            "retrieval": {"metrics": {"token_f1": value(0.30), "refused_wrongly": value(0.05)}},
            "tuned": {"metrics": {"token_f1": value(0.45), "refused_wrongly": value(0.10)}},
            "tuned_retrieval": {"metrics": {"token_f1": value(0.50), "refused_wrongly": value(0.10)}},
        },
        "differences": [
            {"system": "tuned", "against": "base", "metric": "token_f1", **value(0.25)},
            {"system": "tuned", "against": "retrieval", "metric": "token_f1", **value(0.15)},
            {"system": "retrieval", "against": "base", "metric": "token_f1", **value(0.10)},
        ],
        "retention": {"token_loss": {"base": 2.0, "tuned": 2.04, "relative_rise": 0.02, "low": 0.0, "high": 0.04,
                                     "n": 80}},
    }
    return {**copy.deepcopy(found), **changes}


def outcome(gate, found, name, system="tuned", **more):
    return next(check for check in gate.judge(found, system, **more) if check.name == name)


def test_a_report_with_room_to_spare_passes_every_check():
    assert not failed(Gate().judge(report(), "tuned"))


def gain(low, high, metric="token_f1"):
    found = report(metric=metric)
    found["differences"] = [{"system": "tuned", "against": "base", "metric": metric, "value": (low + high) / 2,
                             "low": low, "high": high, "n": 40}]
    for system in found["systems"].values():
        system["metrics"][metric] = {"value": 1.0, "low": 0.9, "high": 1.1, "n": 40}
    return found


@pytest.mark.parametrize(("low", "high", "metric", "min_gain", "passes"), [
    (0.01, 0.2, "token_f1", 0.0, True),       # excludes zero
    (0.0, 0.2, "token_f1", 0.0, False),       # touches zero
    (-0.01, 0.2, "token_f1", 0.0, False),     # includes zero
    (0.01, 0.2, "token_f1", 0.05, False),     # excludes zero, but may be smaller than what is worth having
    (0.06, 0.2, "token_f1", 0.05, True),
    (-0.4, -0.1, "answer_loss", 0.0, True),   # a loss that falls
    (-0.4, 0.1, "answer_loss", 0.0, False),
    (0.1, 0.4, "answer_loss", 0.0, False),    # a loss that rises, with certainty
    (-0.4, -0.1, "answer_loss", 0.2, False),
])
def test_the_whole_interval_must_lie_on_the_good_side(low, high, metric, min_gain, passes):
    check = outcome(Gate(min_gain=min_gain), gain(low, high, metric), "beats")
    assert (check.outcome == "passed") is passes
    assert f"{low:+.3f} to {high:+.3f}" in check.sentence and "n = 40" in check.sentence


def test_beats_names_the_rival():
    weak = report()
    weak["differences"][1] |= {"low": -0.1}
    assert outcome(Gate(beats="base"), weak, "beats").outcome == "passed"
    assert outcome(Gate(beats="retrieval"), weak, "beats").outcome == "failed"
    assert outcome(Gate(beats=None), weak, "beats").outcome == "not applicable"
    assert outcome(Gate(beats="retrieval"), weak, "beats", "retrieval").outcome == "not applicable"


def test_a_difference_that_was_not_measured_fails():
    assert outcome(Gate(), report(differences=[]), "beats").outcome == "failed"
    short = gain(0.1, 0.2)
    short["differences"][0] |= {"low": None, "high": None}
    assert outcome(Gate(), short, "beats").outcome == "failed"


def test_keeping_the_base_model_is_nothing_to_release():
    assert outcome(Gate(), report(), "beats", "base").outcome == "failed"


def test_a_system_that_the_report_does_not_measure_fails():
    found = report()
    del found["systems"]["tuned_retrieval"]
    assert outcome(Gate(), found, "system", "tuned_retrieval").outcome == "failed"


@pytest.mark.parametrize(("gate", "changes", "name", "wanted"), [
    (Gate(min_questions=40), {}, "min_questions", "passed"),
    (Gate(min_questions=41), {}, "min_questions", "failed"),
    (Gate(min_questions=None), {"test": {"num_questions": 1, "disjoint": "document"}}, "min_questions",
     "not applicable"),
    (Gate(disjoint="document"), {}, "disjoint", "passed"),
    (Gate(disjoint="document"), {"test": {"num_questions": 40, "disjoint": "passage"}}, "disjoint", "failed"),
    (Gate(disjoint="passage"), {}, "disjoint", "passed"),
    (Gate(disjoint="passage"), {"test": {"num_questions": 40}}, "disjoint", "failed"),
    (Gate(disjoint="passage"), {"test": {"num_questions": 40, "disjoint": "question"}}, "disjoint", "failed"),
    (Gate(disjoint="passage"), {"test": {"num_questions": 40, "disjoint": "question", "num_documents": 0}}, "disjoint",
     "passed"),
    (Gate(disjoint="question"), {"test": {"num_questions": 40, "disjoint": "passage"}}, "disjoint", "passed"),
    (Gate(disjoint=None), {"test": {"num_questions": 40}}, "disjoint", "not applicable"),
    (Gate(max_retention_rise=0.02), {}, "max_retention_rise", "passed"),
    (Gate(max_retention_rise=0.019), {}, "max_retention_rise", "failed"),
    (Gate(max_retention_rise=0.05), {"retention": {}}, "max_retention_rise", "failed"),
    (Gate(max_retention_rise=None), {"retention": {}}, "max_retention_rise", "not applicable"),
    (Gate(max_wrong_refusals=0.1), {}, "max_wrong_refusals", "passed"),
    (Gate(max_wrong_refusals=0.09), {}, "max_wrong_refusals", "failed"),
    (Gate(max_wrong_refusals=None), {}, "max_wrong_refusals", "not applicable"),
])
def test_each_limit_passes_and_fails_at_its_value(gate, changes, name, wanted):
    check = outcome(gate, report(**changes), name)
    assert check.outcome == wanted, check
    assert check.sentence


def test_wrong_refusals_that_were_not_measured_fail():
    found = report()
    del found["systems"]["tuned"]["metrics"]["refused_wrongly"]
    assert outcome(Gate(), found, "max_wrong_refusals").outcome == "failed"


def test_an_untuned_system_has_nothing_to_forget():
    forgetful = report()
    forgetful["retention"]["token_loss"]["relative_rise"] = 0.5
    assert outcome(Gate(), forgetful, "max_retention_rise", "tuned").outcome == "failed"
    assert outcome(Gate(), forgetful, "max_retention_rise", "retrieval").outcome == "not applicable"


@pytest.mark.parametrize(("agreement", "limit", "wanted"), [
    (None, 0.9, "not applicable"), (0.95, 0.9, "passed"), (0.85, 0.9, "failed"), (0.85, None, "not applicable"),
])
def test_agreement_bounds_a_lower_precision(agreement, limit, wanted):
    assert outcome(Gate(min_agreement=limit), report(), "min_agreement", agreement=agreement).outcome == wanted


def test_approval_needs_a_name():
    gate = Gate(approval="required")
    assert outcome(gate, report(), "approval").outcome == "failed"
    assert outcome(gate, report(), "approval", approved_by=" ").outcome == "failed"
    assert outcome(gate, report(), "approval", approved_by="Liv Marchetti").outcome == "passed"
    assert outcome(Gate(), report(), "approval").outcome == "not applicable"


def test_every_field_of_the_gate_has_a_check():
    """A field that no check reads would be a promise that nothing keeps."""
    names = {check.name for check in Gate().judge(report(), "tuned")}
    assert set(Gate.model_fields) - {"min_gain"} <= names  # min_gain is the limit of `beats`
