"""The verdict: one sentence on which system to use, from intervals alone.

Order of simplicity, cheapest to own first: base < retrieval < tuned < tuned_retrieval. The base model needs nothing;
retrieval needs an index, but answers are citable and follow the documents the moment they change; a tuned model needs
training again when they change, and a proof like this one each time; both together need everything. A more complex
system must earn its cost: it replaces a simpler one only when the 95 % interval of their paired difference on the
task's metric excludes zero, and does not lie wholly below the smallest gain worth having. Ties go to the simpler one.

Against a tuned system speak: a loss of general skills above the limit, and wrong refusals that rose above the limit
compared with the same system untuned. Either one rules it out, however well it scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.evaluate.compare import Measured, needed_questions

System = Literal["base", "retrieval", "tuned", "tuned_retrieval"]
ORDER: tuple[System, ...] = ("base", "retrieval", "tuned", "tuned_retrieval")
NAMES: Mapping[str, str] = {
    "base": "the base model", "retrieval": "the base model with retrieval", "tuned": "the tuned model",
    "tuned_retrieval": "the tuned model with retrieval",
}
PAIRS: tuple[tuple[System, System], ...] = (
    ("retrieval", "base"), ("tuned", "base"), ("tuned_retrieval", "base"), ("tuned", "retrieval"),
    ("tuned_retrieval", "retrieval"), ("tuned_retrieval", "tuned"),
)
UNTUNED: Mapping[str, str] = {"tuned": "base", "tuned_retrieval": "retrieval"}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the walk up the order of simplicity found, for the sentence."""

    leader: str
    present: Sequence[str]
    ruled_out: Mapping[str, str]
    unsettled: Sequence[tuple[str, str]]
    """(system, leader): may be better, but is not shown to be."""
    simpler: Sequence[tuple[str, str]]
    """(leader, system): a simpler one may do as well."""
    needed: Sequence[int]
    """Test rows that would settle each open pair."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The systems of one kind of task, simplest first, and how a verdict speaks of them."""

    order: Sequence[str]
    names: Mapping[str, str]
    untuned: Mapping[str, str]
    """Tuned systems and what each is without tuning."""
    sentence: Callable[[Evidence, Told], str]
    unit: str = "questions"
    """What a test is made of."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the verdict is made from."""

    label: str
    """The decision metric's name for people."""
    better: Literal["higher", "lower"]
    values: Mapping[str, Measured]
    """Decision metric by system."""
    differences: Mapping[tuple[str, str], Measured]
    """Decision metric: (system, against) to the paired difference, for the pairs of `PAIRS` that were measured."""
    num_questions: int
    min_questions: int
    worthwhile: float
    """Smallest difference worth having, in units of the metric, positive."""
    retention: Measured | None = None
    """Relative rise of general token loss through tuning."""
    max_retention_rise: float = 0.05
    wrong_refusals: Mapping[str, Measured] = field(default_factory=dict)
    """Rise of wrong refusals by tuned system, against the same system untuned."""
    max_wrong_refusal_rise: float = 0.1
    warnings: Sequence[str] = ()
    ladder: Ladder | None = None
    """The systems compared; None for those of an assistant."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    choice: str
    sentence: str
    reasons: tuple[str, ...]
    conclusive: bool
    """False when the test is too small to tell: then the choice is only the simplest system not beaten."""
    needed_questions: int | None = None
    """Test questions that would settle it, where they can be estimated."""
    ruled_out: Mapping[str, str] = field(default_factory=dict)
    """Systems ruled out by a limit, and why."""

    def dump(self) -> dict[str, Any]:
        return {"choice": self.choice, "sentence": self.sentence, "reasons": list(self.reasons),
                "conclusive": self.conclusive, "needed_questions": self.needed_questions,
                "ruled_out": dict(self.ruled_out)}


def decide(evidence: Evidence) -> Verdict:
    """Walk up the order of simplicity; a system takes the lead when it is certainly better than the leader."""
    ladder = evidence.ladder or CHAT
    names = ladder.names
    present = [system for system in ladder.order if system in evidence.values]
    ruled_out = {system: why for system in present if (why := _objection(system, evidence, ladder))}
    few = evidence.num_questions < evidence.min_questions
    leader = present[0]
    ties: list[tuple[str, str]] = []
    reasons: list[str] = []
    for system in present[1:]:
        gain = _gain(evidence, system, leader)
        if gain is None:
            continue
        told = f"{names[leader]}: {_show(evidence, system, leader)}"
        if system in ruled_out:
            reasons.append(f"{_cap(names[system])} is ruled out: {ruled_out[system]}. On {evidence.label} it "
                           f"{_outcome(gain)} {told}.")
        elif few:
            reasons.append(f"{_cap(names[system])} against {told}; not counted, because the test is too small.")
            ties.append((system, leader))
        else:
            slight = gain.sign > 0 and gain.high is not None and gain.high < evidence.worthwhile
            reasons.append(f"{_cap(names[system])} {_outcome(gain)} {told}"
                           + (f"; surely less than the {evidence.worthwhile:.3g} that is worth having." if slight
                              else "."))
            if gain.sign > 0 and not slight:
                leader = system
            elif gain.sign == 0:
                ties.append((system, leader))
    rivals: list[tuple[str, str]] = []
    for simpler in () if few else present[1 : present.index(leader)]:
        # It tied an earlier leader. It is overtaken only if the new leader is not certainly worse than it.
        gain = _gain(evidence, leader, simpler)
        if gain is not None and simpler not in ruled_out and gain.sign <= 0:
            reasons.append(f"{_cap(names[leader])} {_outcome(gain)} {names[simpler]}: "
                           f"{_show(evidence, leader, simpler)}.")
            if gain.sign < 0:
                leader = simpler
                break
            rivals.append((leader, simpler))
    # A tie is certain when a gain worth having is excluded; only rivals of the final leader matter.
    unsettled: list[tuple[str, str]] = [
        (system, against) for system, against in ties
        if against == leader and (few or _may_be_worthwhile(_gain(evidence, system, against), evidence.worthwhile))
    ]
    simpler_rivals = [pair for pair in rivals if pair[0] == leader]
    still_open = [*unsettled, *simpler_rivals]
    needed = [n for pair in still_open if (n := needed_questions(evidence.differences[pair], evidence.worthwhile))]
    reasons += _side_notes(evidence, names)
    return Verdict(
        choice=leader, reasons=tuple([*reasons, *evidence.warnings]), conclusive=not few and not still_open,
        sentence=_few(evidence, leader, needed, ladder) if few else ladder.sentence(evidence, Told(
            leader=leader, present=present, ruled_out=ruled_out, unsettled=unsettled, simpler=simpler_rivals,
            needed=needed)),
        needed_questions=max([*needed, evidence.min_questions]) if few or still_open else None, ruled_out=ruled_out,
    )


def _may_be_worthwhile(gain: Measured | None, worthwhile: float) -> bool:
    return gain is not None and (gain.high is None or gain.high >= worthwhile)


def _few(evidence: Evidence, leader: str, needed: Sequence[int], ladder: Ladder) -> str:
    return (f"The test is too small to tell: it has {evidence.num_questions} {ladder.unit}, and about "
            f"{max([*needed, evidence.min_questions]):,} are needed; until then keep {ladder.names[leader]}.")


def _sentence(evidence: Evidence, told: Told) -> str:
    leader, present, ruled_out = told.leader, told.present, told.ruled_out
    unsettled, simpler, needed = told.unsettled, told.simpler, told.needed
    tuning = any(system in UNTUNED for system in present)
    act = {"base": "Do not tune" if tuning else "Keep the base model", "retrieval": "Use retrieval",
           "tuned": "Release the tuned model",
           "tuned_retrieval": "Combine: release the tuned model with retrieval"}[leader]
    rivals = [system for system in present if system != leader and system not in ruled_out
              and ORDER.index(system) > ORDER.index(leader)]
    clauses = []
    if leader != "base":
        clauses.append(f"it beats {NAMES[present[0]]} on {evidence.label}, {_show(evidence, leader, present[0])}")
    elif unsettled:
        clauses.append(f"nothing is measurably better than the base model on {evidence.label}")
    elif rivals:
        what = {"retrieval": "retrieval", "tuned": "tuning"}.get("+".join(rivals), "no other system")
        clauses.append(f"{what} gives a gain worth having on {evidence.label}" if what == "no other system"
                       else f"{what} gives no gain worth having on {evidence.label}")
    if leader != "base" and rivals and not unsettled:
        added = "adding retrieval" if leader == "tuned" else "tuning"
        clauses.append(f"{added} brings no further gain worth having")
    if ruled_out and leader not in ("tuned_retrieval",):
        out = "the tuned model is" if len(ruled_out) == 1 and "tuned" in ruled_out else \
              f"{NAMES['tuned_retrieval']} is" if len(ruled_out) == 1 else "the tuned systems are"
        clauses.append(f"{out} ruled out, because {next(iter(ruled_out.values()))}")
    sentence = f"{act}{',' if ':' in act else ':'} {'because ' if ':' in act else ''}"
    sentence += ", and ".join(clauses) if clauses else "there is nothing to compare it with"
    doubts = []
    if unsettled:
        doubts.append(f"{' or '.join(dict.fromkeys(NAMES[system] for system, _ in unsettled))} is better")
    if simpler:
        doubts.append(f"{' or '.join(dict.fromkeys(NAMES[system] for _, system in simpler))} would do as well")
    if doubts:
        more = f"; about {max(needed):,} test questions would settle it" if needed else ""
        sentence += f"; but the test is too small to tell whether {', and whether '.join(doubts)}{more}"
    return sentence + "."


CHAT = Ladder(order=ORDER, names=NAMES, untuned=UNTUNED, sentence=_sentence)


def _objection(system: str, evidence: Evidence, ladder: Ladder) -> str:
    """Why a tuned system may not win, or an empty string."""
    if system not in ladder.untuned:
        return ""
    rise, limit = evidence.retention, evidence.max_retention_rise
    if rise is not None and rise.value > limit:
        return (f"tuning damaged general skills: token loss on general text rose by {_percent(rise.value, 1)}, "
                f"more than the limit of {_percent(limit, 1)}")
    refusals = evidence.wrong_refusals.get(system)
    if refusals is not None and refusals.sign > 0 and refusals.value > evidence.max_wrong_refusal_rise:
        return (f"tuning made {_percent(refusals.value)} of the answerable questions end in a wrong refusal, "
                f"more than the limit of {_percent(evidence.max_wrong_refusal_rise)}")
    return ""


def _side_notes(evidence: Evidence, names: Mapping[str, str]) -> list[str]:
    notes = []
    rise = evidence.retention
    if rise is not None and rise.value <= evidence.max_retention_rise:
        near = rise.high is not None and rise.high > evidence.max_retention_rise
        notes.append(f"General skills are kept: token loss on general text changed by "
                     f"{_percent(rise.value, 1, sign='+')} (limit {_percent(evidence.max_retention_rise, 1)})"
                     + (f", though a rise of {_percent(rise.high, 1)} cannot be excluded." if near else "."))
    for system, refusals in evidence.wrong_refusals.items():
        if refusals.sign > 0 and refusals.value <= evidence.max_wrong_refusal_rise:
            notes.append(f"{_cap(names[system])} wrongly refuses {_percent(refusals.value)} of the answerable "
                         f"questions more than untuned, within the limit of "
                         f"{_percent(evidence.max_wrong_refusal_rise)}.")
    return notes


def _gain(evidence: Evidence, system: str, against: str) -> Measured | None:
    """The difference with the sign that makes positive mean better."""
    found = evidence.differences.get((system, against))
    if found is None or evidence.better == "higher":
        return found
    low, high = found.low, found.high
    return Measured(-found.value, None if high is None else -high, None if low is None else -low, found.n)


def _outcome(gain: Measured) -> str:
    return {1: "beats", 0: "does not measurably beat", -1: "is worse than"}[gain.sign]


def _show(evidence: Evidence, system: str, against: str) -> str:
    mine, theirs = evidence.values[system], evidence.values[against]
    gap = evidence.differences.get((system, against))
    text = f"{mine.value:.3f} against {theirs.value:.3f}"
    if gap is None:
        return text
    return f"{text} (difference {_signed(gap.value)}{_interval(gap, ', ')}, n\u00a0=\u00a0{gap.n})"


def _percent(share: float | None, digits: int = 0, *, sign: str = "") -> str:
    return f"{100 * (share or 0.0):{sign}.{digits}f}\u00a0%".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _interval(gap: Measured, lead: str) -> str:
    if gap.low is None or gap.high is None:
        return ""
    return f"{lead}95 % interval {_signed(gap.low)} to {_signed(gap.high)}"


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def changes(label: str, better: Literal["higher", "lower"], pair: tuple[str, str], difference: Measured,
            value: Measured, against: Measured, names: Mapping[str, str] = NAMES
            ) -> tuple[Literal["improvements", "regressions", "no_change"], str]:
    """One line of the list of improvements, regressions and what did not change (as InstructLab prints it)."""
    good = difference.sign if better == "higher" else -difference.sign
    line = (f"{label}, {names[pair[0]]} against {names[pair[1]]}: {against.value:.3f} → {value.value:.3f} "
            f"({_signed(difference.value)}{_interval(difference, '; ')}; n = {difference.n})")
    return "improvements" if good > 0 else "regressions" if good < 0 else "no_change", line
