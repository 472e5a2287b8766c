"""The gate: which measured values a system must show before it is released. Every check is shown, passed or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from luthier.spec import Spec
from luthier.task import LABELLED

System = Literal["base", "retrieval", "tuned", "tuned_retrieval", "features", "tfidf", "pixels"]
"""Tasks with labels: `features` is a frozen base model with a logistic regression on top, `tfidf` and `pixels` are
logistic regressions without a base model, `base` is an encoder as it was (embed)."""
TUNED: tuple[System, ...] = ("tuned", "tuned_retrieval")
UNTUNED: tuple[System, ...] = ("features", "tfidf", "pixels", "base")
"""Systems of tasks with labels that need no tuning and can be released."""
_UNRELEASABLE: Mapping[str, str] = {
    "majority": "always answering the commonest class does as well as anything that was measured, so there is nothing "
                "to release; add labelled rows, above all of the rare classes, and look at the report's mistakes",
    "lookup": "each word's commonest tag does as well as the tuned model, and a list of words is no model to release; "
              "add labelled rows, or use the list",
    "bm25": "keyword search does as well as any encoder, and it needs a search index, not a model; use the search of "
            "your database, or add pairs whose texts share few words",
    "zero_shot": "the chat model that is only told the names of the classes does as well, and it is no part of this "
                 "project; ask it directly, or add labelled rows",
}
LOWER_IS_BETTER = ("answer_loss", "perplexity", "refused_wrongly", "log_loss")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate, with what was measured."""

    name: str
    """The gate's field."""
    outcome: Literal["passed", "failed", "not applicable"]
    limit: float | str | None
    """What the gate asks for."""
    measured: float | str | None
    """What was found, in the unit of the limit; None where it was not measured."""
    sentence: str
    """Both, for a person."""

    def dump(self) -> dict[str, Any]:
        return asdict(self)


class Gate(Spec):
    """Conditions of a release. A condition that was not measured counts as failed; `null` switches one off."""

    beats: Literal["base", "retrieval"] | None = "base"
    """System that must be beaten on the task's metric; the released system itself need not beat itself. For the tasks
    classify, tag, embed and image, `base` is the best of the systems that are simpler than the released one: for a
    tuned model those that need no tuning (TF-IDF, features, …), for TF-IDF the commonest class."""
    min_gain: float = Field(default=0.0, ge=0)
    """The whole 95 % interval of the paired difference must lie above this gain, in units of the metric; 0 means that
    the interval excludes zero on the good side."""
    min_questions: int | None = Field(default=20, ge=1)
    """Fewest test questions that the report may stand on."""
    disjoint: Literal["document", "passage", "question"] | None = "passage"
    """How far test and training must be apart; a stricter separation than asked for is accepted. Pairs that belong to
    no document have no passages: for a test set of such pairs alone, `passage` accepts `question`, and so it does for
    the tasks classify, tag, embed and image, which know no passages."""
    max_retention_rise: float | None = Field(default=0.05, ge=0)
    """Greatest relative rise of the token loss on general text through tuning (0.05 = 5 %); only for tuned systems."""
    max_wrong_refusals: float | None = Field(default=0.5, ge=0, le=1)
    """Greatest share of answerable test questions that the system may refuse."""
    max_recited: int | None = Field(default=0, ge=0)
    """Most values that a tuned model may recite of those that `prepare.privacy` took out of its data."""
    min_agreement: float | None = Field(default=0.9, ge=0, le=1)
    """Smallest share of probe tokens (rows, for tasks with labels) on which an export in lower precision must choose as
    the trained model does; an export in float32 must agree on all of them, and no setting changes that."""
    approval: Literal["none", "required"] = "none"
    """`required`: `release.approved_by` must name a person."""

    def judge(self, report: Mapping[str, Any], system: str, *, approved_by: str = "",
              agreement: float | None = None) -> list[Check]:
        """Every check, for releasing `system` on the evidence of `report` (the content of report.json).

        `agreement` is what parity measured for an export in lower precision; None when there is none.
        """
        return [self._measured(report, system), self._beats(report, system), self._questions(report),
                self._disjoint(report), self._retention(report, system), self._refusals(report, system),
                self._recited(report, system),
                self._agreement(agreement, "probe rows" if labelled(report) else "probe tokens"),
                self._approval(approved_by)]

    def _measured(self, report: Mapping[str, Any], system: str) -> Check:
        known = [*report["systems"]]
        return Check(name="system", outcome="passed" if system in known else "failed", limit=system,
                     measured=", ".join(known),
                     sentence=f"the report must measure '{system}'; it measures {', '.join(known)}")

    def _beats(self, report: Mapping[str, Any], system: str) -> Check:
        if self.beats is None:
            return _skip("beats", "no system needs to be beaten")
        if labelled(report):
            return self._beats_rival(report, system)
        if system == self.beats and system != "base":
            return _skip("beats", f"'{system}' is the system to be beaten")
        if system == "base":
            return Check(name="beats", outcome="failed", limit=self.min_gain, measured=None,
                         sentence="the verdict is to keep the base model, so there is nothing to release")
        return self._beats_by(report, system, self.beats)

    def _beats_rival(self, report: Mapping[str, Any], system: str) -> Check:
        """A classifier must beat the best of the systems that are simpler than itself."""
        if system not in (*UNTUNED, "tuned"):
            return Check(name="beats", outcome="failed", limit=self.min_gain, measured=None,
                         sentence=f"{unreleasable(system)}; --force releases the tuned model all the same (recorded)")
        rival = report.get("rival") if system == "tuned" else _best_simpler(report, system)
        if rival is None:
            return _skip("beats", f"nothing simpler than '{system}' was measured")
        return self._beats_by(report, system, rival)

    def _beats_by(self, report: Mapping[str, Any], system: str, other: str) -> Check:
        metric = report["metric"]
        found = next((row for row in report["differences"] if row["system"] == system
                      and row["against"] == other and row["metric"] == metric), None)
        if found is None:
            return Check(name="beats", outcome="failed", limit=self.min_gain, measured=None,
                         sentence=f"'{system}' must beat '{other}' on {metric}, but they were not compared")
        lower = metric in LOWER_IS_BETTER
        worst = found["high"] if lower else found["low"]
        gain = None if worst is None else -worst if lower else worst
        mine, theirs = (report["systems"][name]["metrics"][metric]["value"] for name in (system, other))
        interval = "no interval" if found["low"] is None or found["high"] is None else \
            f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}"
        side = f"below -{self.min_gain:g}" if lower and self.min_gain else "below 0" if lower else \
            f"above {self.min_gain:g}"
        return Check(
            name="beats", outcome="passed" if gain is not None and gain > self.min_gain else "failed",
            limit=self.min_gain, measured=gain,
            sentence=f"'{system}' must beat '{other}' on {metric}: {mine:.3f} against {theirs:.3f}, difference "
                     f"{found['value']:+.3f}, {interval}, n = {found['n']}; the interval must lie {side}",
        )

    def _questions(self, report: Mapping[str, Any]) -> Check:
        if self.min_questions is None:
            return _skip("min_questions", "any number of test questions will do")
        count = report["test"]["num_questions"]
        return Check(name="min_questions", outcome="passed" if count >= self.min_questions else "failed",
                     limit=self.min_questions, measured=count,
                     sentence=f"{count} test questions, at least {self.min_questions} are asked for")

    def _disjoint(self, report: Mapping[str, Any]) -> Check:
        if self.disjoint is None:
            return _skip("disjoint", "test and training need not be apart")
        found = report["test"].get("disjoint")
        strictness = {"question": 1, "passage": 2, "document": 3}
        wanted = strictness[self.disjoint]
        if wanted == 2 and (report["test"].get("num_documents") == 0 or labelled(report)):
            wanted = 1
        fine = strictness.get(str(found), 0) >= wanted
        return Check(name="disjoint", outcome="passed" if fine else "failed", limit=self.disjoint, measured=found,
                     sentence=f"the test is disjoint from training by {found or 'nothing that was recorded'}, "
                              f"asked for: by {self.disjoint}")

    def _retention(self, report: Mapping[str, Any], system: str) -> Check:
        name, limit = "max_retention_rise", self.max_retention_rise
        if labelled(report):
            return _skip(name, "a model with labels for answers has no general skills to lose")
        if limit is None:
            return _skip(name, "general skills are not checked")
        if system not in TUNED:
            return _skip(name, f"'{system}' has the base model's own weights")
        loss = report.get("retention", {}).get("token_loss", {})
        rise = loss.get("relative_rise")
        if rise is None:
            return Check(name=name, outcome="failed", limit=limit, measured=None,
                         sentence="general skills were not measured, but their loss is limited to "
                                  f"{limit:.1%}; switch the retention probe on or set the limit to null")
        interval = "" if loss.get("low") is None or loss.get("high") is None else \
            f" (95 % interval {loss['low']:+.1%} to {loss['high']:+.1%}, n = {loss['n']})"
        return Check(name=name, outcome="passed" if rise <= limit else "failed", limit=limit, measured=rise,
                     sentence=f"token loss on general text changed by {rise:+.1%}{interval}, at most {limit:+.1%} "
                              "is allowed")

    def _refusals(self, report: Mapping[str, Any], system: str) -> Check:
        name, limit = "max_wrong_refusals", self.max_wrong_refusals
        if labelled(report):
            return _skip(name, "a model with labels for answers refuses nothing in words")
        if limit is None:
            return _skip(name, "wrong refusals are not limited")
        found = report["systems"].get(system, {}).get("metrics", {}).get("refused_wrongly")
        if found is None:
            return Check(name=name, outcome="failed", limit=limit, measured=None,
                         sentence=f"wrong refusals of '{system}' were not measured, but they are limited to "
                                  f"{limit:.0%}; add the metric refused_wrongly or set the limit to null")
        share = found["value"]
        return Check(name=name, outcome="passed" if share <= limit else "failed", limit=limit, measured=share,
                     sentence=f"'{system}' refuses {share:.0%} of the answerable questions (n = {found['n']}), "
                              f"at most {limit:.0%} is allowed")

    def _recited(self, report: Mapping[str, Any], system: str) -> Check:
        name, limit = "max_recited", self.max_recited
        told = report.get("privacy", {})
        if labelled(report):
            return _skip(name, "a model with labels for answers says no values")
        if limit is None:
            return _skip(name, "recited values are not limited")
        if system not in TUNED:
            return _skip(name, f"'{system}' has the base model's own weights")
        if not told.get("values"):
            return _skip(name, "no personal data was taken out of the training data")
        if not told["checked"]:
            return Check(name=name, outcome="failed", limit=limit, measured=None,
                         sentence=f"{told['values']:,} personal values were taken out of the training data, but it was "
                                  f"not checked whether the model recites them: {told['why']}")
        count = told["recited"]
        return Check(name=name, outcome="passed" if count <= limit else "failed", limit=limit, measured=count,
                     sentence=f"the tuned model recites {count:,} of {told['values']:,} personal values that were "
                              f"taken out of its data (asked with {told['contexts'] + told['questions']:,} prompts), "
                              f"at most {limit:,} is allowed")

    def _agreement(self, agreement: float | None, what: str) -> Check:
        name, limit = "min_agreement", self.min_agreement
        if agreement is None:
            return _skip(name, "nothing is released in lower precision")
        if limit is None:
            return _skip(name, "agreement in lower precision is not limited")
        return Check(name=name, outcome="passed" if agreement >= limit else "failed", limit=limit,
                     measured=agreement,
                     sentence=f"the export in lower precision chooses {agreement:.1%} of the {what} as the "
                              f"trained model does, at least {limit:.1%} is asked for")

    def _approval(self, approved_by: str) -> Check:
        if self.approval == "none":
            return _skip("approval", "no approval is asked for")
        return Check(name="approval", outcome="passed" if approved_by.strip() else "failed", limit="required",
                     measured=approved_by or None,
                     sentence=f"approved by {approved_by}" if approved_by.strip() else
                     "a person must approve: write the name into release.approved_by")


def unreleasable(system: str) -> str:
    """Why a system of a task with labels is not released, and what to do."""
    why = _UNRELEASABLE.get(system, "it is not a model that can be saved; name another in release.system")
    return f"'{system}' is not released: {why}"


def _best_simpler(report: Mapping[str, Any], system: str) -> str | None:
    """The best of the systems that are simpler to own than an untuned one; None where none was measured."""
    from luthier.evaluate.labels.verdict import ORDER, rival

    values = {one: found["metrics"][report["metric"]]["value"] for one, found in report["systems"].items()
              if ORDER.index(one) < ORDER.index(system)}
    return rival(values, lower=report["metric"] in LOWER_IS_BETTER)


def labelled(report: Mapping[str, Any]) -> bool:
    """Whether the report is about a task with labels (classify, tag, embed, image)."""
    return report.get("task", {}).get("type") in LABELLED


def _skip(name: str, why: str) -> Check:
    return Check(name=name, outcome="not applicable", limit=None, measured=None, sentence=why)


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if check.outcome == "failed"]
