"""The verdict on a labelled task: is tuning worth it against what needs no tuning?

Order of simplicity, cheapest to own first. A more complex system wins only when it is certainly better than the
simpler one (`luthier.evaluate.verdict.decide`); ties go to the simpler.
"""

from __future__ import annotations

from collections.abc import Mapping

from luthier.evaluate.verdict import Evidence, Ladder, Told, _gain, _show

ORDER: tuple[str, ...] = ("majority", "lookup", "bm25", "tfidf", "pixels", "zero_shot", "base", "features", "tuned")
NAMES: Mapping[str, str] = {
    "majority": "the commonest class", "lookup": "each word's commonest tag", "bm25": "keyword search (BM25)",
    "tfidf": "TF-IDF + logistic regression", "pixels": "logistic regression on pixels",
    "zero_shot": "the chat model without examples", "base": "the base encoder",
    "features": "frozen features + logistic regression", "tuned": "the tuned model",
}
LABELS: Mapping[str, str] = {
    "majority": "Commonest class", "lookup": "Word lookup", "bm25": "Keyword search (BM25)",
    "tfidf": "TF-IDF + logistic regression", "pixels": "Pixels + logistic regression", "zero_shot": "Zero-shot",
    "base": "Base encoder", "features": "Frozen features + logistic regression", "tuned": "Tuned",
}
ABOUT: Mapping[str, str] = {
    "majority": "Always answers the class that is commonest in the training rows.",
    "lookup": "Gives each word the tag that it most often has in the training rows.",
    "bm25": "Ranks texts by the words that they share with the query; nothing is trained.",
    "tfidf": "Counts words and pieces of words; a linear model that trains in seconds and needs no GPU.",
    "pixels": "A linear model on images shrunk to 16 × 16 pixels.",
    "zero_shot": "A chat model that was told the names of the classes and saw no example.",
    "base": "The encoder as it was, without training.",
    "features": "A linear model on the base model's own features; the base model itself stays as it was.",
    "tuned": "The model that was trained here.",
}


def pairs(present: list[str]) -> list[tuple[str, str]]:
    """Every system against every simpler one."""
    known = [system for system in ORDER if system in present]
    return [(system, simpler) for at, system in enumerate(known) for simpler in known[:at]]


def rival(values: Mapping[str, float], *, lower: bool) -> str | None:
    """The best of the systems that are simpler than the tuned one."""
    others = [system for system in ORDER if system in values and system != "tuned"]
    return min(others, key=lambda one: values[one] if lower else -values[one]) if others else None


def sentence(evidence: Evidence, told: Told) -> str:
    """The verdict in words."""
    leader, name = told.leader, NAMES[told.leader]
    doubts = []
    if told.unsettled:
        doubts.append(f"{' or '.join(dict.fromkeys(NAMES[one] for one, _ in told.unsettled))} is better")
    if told.simpler:
        doubts.append(f"{' or '.join(dict.fromkeys(NAMES[one] for _, one in told.simpler))} would do as well")
    doubt = ""
    if doubts:
        doubt = f"; but the test is too small to tell whether {', and whether '.join(doubts)}"
        doubt += f"; about {max(told.needed):,} test rows would settle it" if told.needed else ""
    if leader == "tuned":
        values = {system: evidence.values[system].value for system in told.present}
        best = rival(values, lower=evidence.better == "lower")
        why = ""
        if best is not None:
            shown, gain = _show(evidence, leader, best), _gain(evidence, leader, best)
            beats = gain is not None and gain.sign > 0
            why = f": it beats {NAMES[best]}, the best of the simpler systems, on {evidence.label}, {shown}" if beats \
                else f": {evidence.label} {shown} for {NAMES[best]}, the best of the simpler systems"
        return f"Release the tuned model{why}{doubt}."
    if "tuned" not in told.present:
        against = f": it beats {NAMES[told.present[0]]}, {_show(evidence, leader, told.present[0])}" \
            if leader != told.present[0] else ""
        return f"Use {name}{against}; nothing was tuned{doubt}."
    gain = _gain(evidence, "tuned", leader)
    open_ = ("tuned", leader) in told.unsettled
    shown = _show(evidence, "tuned", leader)
    if "tuned" in told.ruled_out:
        verb = f"the tuned model is ruled out, because {told.ruled_out['tuned']}"
    elif gain is not None and gain.sign < 0:
        verb = f"{name} is better on {evidence.label}; the tuned model reaches {shown}"
    elif open_:
        verb = f"the tuned model is not measurably better on {evidence.label} than {name}, {shown}"
    elif gain is not None and gain.sign > 0:
        verb = (f"{name} does nearly as well on {evidence.label}, and the tuned model gains less than is worth having, "
                f"{shown}")
    else:
        verb = f"{name} does as well on {evidence.label}; the tuned model reaches {shown}"
    return f"Do not tune: {verb}{doubt}."


LADDER = Ladder(order=ORDER, names=NAMES, untuned={"tuned": "features"}, sentence=sentence, unit="rows")
