"""The gate of an update: promote, refuse, or ask a person. Every check is a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from luthier.project.updating import UpdateGate
from luthier.watch.compare import LEAST_SURE, NEW, OLD

State = Literal["passed", "failed", "unsure", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class UpdateCheck:
    """One condition of an update."""

    name: str
    """The gate's field, or the data that it is about."""
    outcome: State
    limit: float | None
    measured: float | None
    """In the unit of the limit; None where it was not measured."""
    sentence: str

    def dump(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from the checks."""

    verdict: Literal["promote", "refuse", "ask"]
    checks: tuple[UpdateCheck, ...]
    sentence: str

    @property
    def reasons(self) -> tuple[UpdateCheck, ...]:
        """The checks that speak against it."""
        return tuple(check for check in self.checks if check.outcome in ("failed", "unsure"))


def judge(compared: Mapping[str, Any], gate: UpdateGate) -> Decision:
    """`compared` is the content of compare.json."""
    checks = tuple(check for one in CHECKS for check in one(compared, gate))
    failed = [check.name for check in checks if check.outcome == "failed"]
    unsure = [check.name for check in checks if check.outcome == "unsure"]
    if failed:
        return Decision(verdict="refuse", checks=checks, sentence=f"refused: {len(failed)} of {len(checks)} checks "
                        f"failed ({', '.join(failed)})")
    if unsure and gate.unsure == "refuse":
        return Decision(verdict="refuse", checks=checks, sentence="refused: the test is too small to tell "
                        f"({', '.join(unsure)}), and watch.gate.unsure is 'refuse'")
    if unsure and gate.unsure == "ask":
        return Decision(verdict="ask", checks=checks, sentence=f"a person must decide: the test is too small to tell "
                        f"({', '.join(unsure)})")
    if gate.approval == "required":
        return Decision(verdict="ask", checks=checks, sentence="a person must approve: watch.gate.approval is "
                        "'required'")
    return Decision(verdict="promote", checks=checks, sentence="all checks passed" if not unsure else
                    f"promoted though the test is too small to tell ({', '.join(unsure)}): watch.gate.unsure is "
                    "'promote'")


def _old(compared: Mapping[str, Any], gate: UpdateGate) -> list[UpdateCheck]:
    return [_fall(compared, OLD, metric, gate.max_loss, "max_loss" if at == 0 else f"max_loss ({metric})",
                  "the old test rows") for at, metric in enumerate(compared["metrics"])]


def _new(compared: Mapping[str, Any], gate: UpdateGate) -> list[UpdateCheck]:
    return [_fall(compared, NEW, metric, gate.max_new_loss, "max_new_loss" if at == 0 else f"max_new_loss ({metric})",
                  "the new test rows") for at, metric in enumerate(compared["metrics"])]


def _parts(compared: Mapping[str, Any], gate: UpdateGate) -> list[UpdateCheck]:
    """What each earlier release was made for must not be lost, even where the old rows together hold."""
    metric, names = compared["metric"], compared["batches"][:-1]
    found = [_fall(compared, name, metric, gate.max_loss, name, f"the test rows of '{name}'") for name in names] \
        if len(names) > 1 else []
    return [check if check.outcome != "unsure" else
            UpdateCheck(**{**check.dump(), "outcome": "passed", "sentence": f"{check.sentence}; too few rows of one "
                           "data to tell, judged together with the old rows"}) for check in found]


def _fall(compared: Mapping[str, Any], part: str, metric: str, limit: float, name: str, what: str) -> UpdateCheck:
    """Passed where the score did not fall, or surely by no more than the limit; failed where it surely fell, by more
    than the limit; unsure between."""
    found = compared["sets"].get(part, {"n": 0, "metrics": {}})
    one = found["metrics"].get(metric)
    if one is None:
        return UpdateCheck(name=name, outcome="not applicable", limit=limit, measured=None,
                           sentence=f"there are none of {what}, so nothing was compared")
    facts = compared["metrics"][metric]
    sign = -1 if facts["better"] == "higher" else 1
    gap = one["difference"]
    fall = sign * gap["value"]
    low, high = sorted(sign * gap[side] for side in ("low", "high")) if gap["low"] is not None else (None, None)
    if fall <= 0 or (high is not None and high <= limit):
        outcome: State = "passed"
    elif low is not None and low > 0 and fall > limit:
        outcome = "failed"
    else:
        outcome = "unsure"
    unit = "%" if facts["relative"] else ""
    scale = 100 if unit else 1
    interval = "no interval" if low is None else \
        f"95 % interval {scale * gap['low']:+.3g}{unit} to {scale * gap['high']:+.3g}{unit}"
    return UpdateCheck(
        name=name, outcome=outcome, limit=limit, measured=round(fall, 6),
        sentence=f"{facts['label']} on {what}: {one['champion']['value']:.3f} → {one['challenger']['value']:.3f} "
                 f"({scale * gap['value']:+.3g}{unit}, {interval}, n = {found['n']}); it may get worse by at most "
                 f"{scale * limit:g}{unit}")


def _contradicted(compared: Mapping[str, Any], gate: UpdateGate) -> list[UpdateCheck]:
    found, limit = compared.get("contradicted"), gate.max_contradicted
    if found is None:
        return []
    if limit is None or not found["n"]:
        why = "it is not looked for" if limit is None else "there are none of classes that it knows"
        return [UpdateCheck(name="max_contradicted", outcome="not applicable", limit=limit, measured=None,
                            sentence=f"labels of new rows against the live model: {why}")]
    if found["sure"] < LEAST_SURE:
        return [_agreement(found, limit)]
    return [UpdateCheck(
        name="max_contradicted", outcome=_over(found["share"], found["low"], limit), limit=limit,
        measured=round(found["share"], 6),
        sentence=f"of {found['n']} new rows with classes that the live model knows it is sure of {found['sure']}, and "
                 f"{found['contradicted']} of these ({found['share']:.0%}, 95 % interval {found['low']:.0%} to "
                 f"{found['high']:.0%}) have another label; at most {limit:.0%} may, more looks like wrong labels"
                 + _such(found["rows"]))]


def _agreement(found: Mapping[str, Any], limit: float) -> UpdateCheck:
    """For a live model that is sure of too few rows: how much seldomer it says the label of a new row."""
    one = found["agreement"]
    if one is None:
        return UpdateCheck(name="max_contradicted", outcome="not applicable", limit=limit, measured=None,
                           sentence="labels of new rows against the live model: there is no old test row to compare "
                                    "with")
    outcome = _over(one["fall"], one["low"], limit)
    return UpdateCheck(
        name="max_contradicted", outcome=outcome, limit=limit, measured=round(one["fall"], 6),
        sentence=f"the live model agrees with {one['new']:.0%} of the labels of {one['new_n']} new rows, and with "
                 f"{one['old']:.0%} of {one['old_n']} old test rows (a fall of {one['fall']:.0%}, 95 % interval "
                 f"{one['low']:.0%} to {one['high']:.0%}); at most {limit:.0%} may be, more looks like wrong labels"
                 + (_such(found["rows"]) if outcome != "passed" else ""))


def _over(value: float, low: float, limit: float) -> State:
    return "passed" if value <= limit else "failed" if low > limit else "unsure"


def _such(rows: list[Mapping[str, Any]]) -> str:
    told = [f"{row['where']} '{row['label']}' instead of '{row['champion']}'" for row in rows[:3]]
    return f", such as {'; '.join(told)}" if told else ""


def _retention(compared: Mapping[str, Any], gate: UpdateGate) -> list[UpdateCheck]:
    if "retention" not in compared:
        return []
    limit, loss = gate.max_retention_rise, compared["retention"].get("token_loss", {})
    rise = loss.get("relative_rise")
    if limit is None or rise is None:
        why = "not limited" if limit is None else "not measured: evaluate.retention.instructions is 'none'"
        return [UpdateCheck(name="max_retention_rise", outcome="not applicable", limit=limit, measured=None,
                            sentence=f"general skills are {why}")]
    low, high = loss.get("low"), loss.get("high")
    surely = low is not None and low > 0
    outcome: State = "passed" if rise <= limit else "failed" if surely else "unsure"
    interval = "" if low is None or high is None else f", 95 % interval {low:+.1%} to {high:+.1%}"
    return [UpdateCheck(name="max_retention_rise", outcome=outcome, limit=limit, measured=rise,
                        sentence=f"token loss on general text: {loss['base']:.3f} → {loss['tuned']:.3f} ({rise:+.1%}"
                                 f"{interval}, n = {loss['n']}); at most {limit:+.1%} is allowed")]


CHECKS: tuple[Callable[[Mapping[str, Any], UpdateGate], list[UpdateCheck]], ...] = (
    _old, _new, _parts, _contradicted, _retention)
"""Every check: from compare.json and the gate's settings to what was found. A new audit adds its function here."""
