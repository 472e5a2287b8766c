"""Checks that a candidate must pass before a model may learn from it or be tested on it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.prepare.makers._kinds import orders
from luthier.prepare.makers._replies import Candidate
from luthier.prepare.makers._spans import find_quote, incomplete, out_of_order
from luthier.prepare.makers._teacher import SHOWN
from luthier.prepare.makers._text import (
    content,
    ends_well,
    evidence,
    is_item,
    key,
    numbers,
    overlap,
    refers_to_page,
    stands_alone,
    support,
)
from luthier.types import Passage

_ECHO = re.compile(
    r"\b(?:json|write (?:the|one|a|\d+) question|the question that|question that (?:is|this)|answer(?:s|ed)? "
    r"(?:this|the) "
    r"question|the answer to|your question here|triple quotes|full sentences?)\b|…|\.\.\.",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"[{}<>]")
_REFUSED = re.compile(
    r"\b(?:(?:text|passage|document|context) does(?: not|n['’]t)|not (?:mentioned|stated|specified|provided|given) in|"
    r"i (?:do not|don['’]t|cannot|can['’]t)|as an ai|no information|unable to)\b", re.IGNORECASE)
_QUANTITY = re.compile(
    r"\b(?:how (?:much|many|long|far|often|old|high|heavy|big|large|fast|tall|deep|wide)|when|what (?:time|date|"
    r"year|age|"
    r"percentage|temperature|price)|at what (?:time|age|temperature)|wie (?:viel|viele|lange|weit|oft|alt|hoch|"
    r"schwer|groß)|"
    r"wann)\b",
    re.IGNORECASE,
)
_AMOUNT = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand|once|twice|half|"
    r"free|never|always|every|each|daily|weekly|monthly|yearly|annually|hourly|before|after|until|during|when|"
    r"if|as soon|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march|april|may|june|july|august|"
    r"september|october|november|december|ein|eine|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|nie|immer|jede[nrsm]?|"
    r"täglich|wöchentlich|monatlich|jährlich|kostenlos|vor|nach|bis|wenn|sobald)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What the source says about a candidate."""

    reason: str
    """Empty when the candidate is sound; else a short slug."""
    detail: str
    supported: bool
    """Whether the answer's words and numbers stand in the passage."""
    evidence: str
    """The passage's own words that support the answer."""
    share: float = 0.0
    """Of the answer's content words, how many stand in the evidence, its headings or the question."""
    quoted: bool = False
    """The teacher's quote stands in the passage word for word."""


def form(candidate: Candidate, language: str, source: str = "") -> tuple[str, str]:
    """(reason, detail) for a question or answer that is badly formed; ("", "") if fine.

    Of the source it only matters which signs ({}<>) it holds: where it has none, they come from the instruction. An
    answer that shall be none (kind `unanswerable`) is not looked at.
    """
    question, answer = candidate.question, candidate.answer
    signs = set(_SIGNS.findall(question + answer)) - set(source)
    if not question.endswith(("?", "？")):
        return "no-question", "it does not end with a question mark"
    if len(question.split()) < 4 and language not in ("zh", "ja", "th"):
        return "question-too-short", f"{len(question.split())} words"
    if len(question.split()) > 45:
        return "question-too-long", f"{len(question.split())} words"
    shown = max(overlap(question, example) for _, _, example in SHOWN)
    if _ECHO.search(question) or signs or shown >= 0.5:
        return "echo", "the question repeats the instruction or its examples"
    said = content(question, language)
    if candidate.focus and len(set(said)) < 2 and language not in ("zh", "ja", "th"):
        return "question-too-short", "it names nothing that could be looked up"
    if len(set(said)) < len(said) - 1 or re.search(r"\b(\w{4,})\b(?: \w+){1,2} \1\b", question, re.IGNORECASE):
        return "odd-question", "it repeats its own words"
    if refers_to_page(question, language):
        return "needs-passage", "the question points at the text it was made from"
    if not stands_alone(question, language):
        return "needs-context", "a pronoun stands in place of what the question is about"
    if candidate.kind == "unanswerable":
        return "", ""
    if _REFUSED.search(answer):
        return "refusal", "the teacher found no answer"
    if _ECHO.search(answer) or refers_to_page(answer, language):
        return "echo", "the answer speaks of the text or the instruction"
    if len(content(answer, language)) < 2 and not numbers(answer):
        return "answer-too-short", "the answer says nothing by itself"
    if not ends_well(answer) and not is_item(answer.strip().rsplit("\n", 1)[-1]):
        return "cut-off", "the answer ends inside a sentence"
    if key(answer) == key(question) or (
        support(answer, question, language) == 1 and not numbers(answer) - numbers(question)
    ):
        return "echo", "the answer only repeats the question"
    return "", ""


def grounded(candidate: Candidate, passages: Sequence[Passage], language: str, *, min_support: float,
             min_question: float) -> Verdict:
    """Whether the passages support the answer with a span of their own words, and the question is about them.

    The span is the teacher's quote where it stands in the passage word for word and holds the answer, else the run of
    sentences (three at most; more for lists and steps) that holds most of it; a comparison has one of each passage,
    joined by "[…]". Support is the share of the answer's content words (stems) that stand in span, headings or
    question; every number of the answer must stand there too, for a wrong figure is the commonest and costliest
    invention. This sees invented content, not a wrong relation between words that are there.
    """
    whole = "\n".join(passage.headed for passage in passages)
    share = support(candidate.answer, whole, language)
    invented = numbers(candidate.answer) - numbers(whole)
    span, held, quoted = _span(candidate, passages, language)
    supported = share >= min_support and not invented and bool(span)

    def say(reason: str, detail: str, supported: bool = supported) -> Verdict:
        return Verdict(reason, detail, supported, span, held, quoted)

    if invented:
        return say("unsupported", f"numbers that the passage does not hold: {', '.join(sorted(invented))}")
    if not supported:
        return say("unsupported", f"{share:.0%} of the answer's words stand in the passage")
    if held < min_support:
        return say("no-span", f"the span that fits best holds {held:.0%} of the answer's words", False)
    if orders(f"{candidate.question} {span}"):
        return say("injection", "it rests on a sentence that speaks to a language model", False)
    about = support(candidate.question, f"{whole} {candidate.answer}", language)
    if about < min_question:
        return say("off-topic", f"{about:.0%} of the question's words stand in the passage")
    shared = set(content(candidate.question, language)) & set(content(candidate.answer, language))
    if candidate.focus and candidate.kind == "fact" and not shared:
        return say("off-topic", "question and answer share no word")
    framed = _frames(candidate.question) - _frames(f"{whole} {candidate.answer}")
    if framed and candidate.kind != "comparison":
        return say("off-topic", f"the passage speaks of no {' or '.join(sorted(framed))}")
    if candidate.kind in ("list", "procedure") and _QUANTITY.search(candidate.question):
        return say("wrong-kind", "the question asks for an amount or a time, the answer is a list")
    if wrong := _wrong_kind(candidate.question, candidate.answer):
        return say("wrong-kind", wrong)
    if candidate.kind == "comparison":
        one_sided = _one_sided(candidate.answer, passages, language)
        return say("one-sided", one_sided) if one_sided else say("", "")
    if missing := incomplete(candidate.question, candidate.answer, passages[0].text, language):
        return say("incomplete-list", missing)
    if candidate.kind == "procedure" and (moved := out_of_order(candidate.answer, passages[0].text, language)):
        return say("wrong-order", moved)
    return say("", "")


def _span(candidate: Candidate, passages: Sequence[Passage], language: str) -> tuple[str, float, bool]:
    """(verbatim span, share of the answer that it holds with headings and question, whether it is the teacher's)."""
    around = " ".join([candidate.question, *(part for p in passages for part in (p.title, *p.heading))])

    def held(span: str) -> float:
        inside = f"{around} {span}"
        return support(candidate.answer, inside, language) if numbers(candidate.answer) <= numbers(inside) else 0.0

    most = 20 if candidate.kind in ("list", "procedure") else 3
    found = " […] ".join(span for p in passages
                         if (span := evidence(candidate.answer, p.text, language=language, most=most)[0]))
    quote = find_quote(candidate.quote, passages[0].text) if candidate.quote and len(passages) == 1 else ""
    if quote and held(quote) >= min(0.75, held(found)):
        return quote, held(quote), True
    return found, held(found) if found else 0.0, bool(quote)


def _one_sided(answer: str, passages: Sequence[Passage], language: str) -> str:
    """Why an answer does not draw on both passages; empty when it does."""
    said = set(content(answer, language))
    have = [set(content(passage.headed, language)) for passage in passages]
    for passage, own, other in zip(passages, have, reversed(have)):
        if len(said & own - other) < 2:
            return f"of {passage.citation} alone it holds fewer than two words"
    return ""


def _frames(text: str) -> set[str]:
    """Words with which small teachers frame any question ("What is the maximum amount of …?")."""
    return {
        word.lower()
        for word in re.findall(
            r"\b(?:maximum|minimum|difference|differ|purpose|name|amount|best|current|main|most|likely|important|number|average|"
            r"total|first|last|history|meaning|origin|example|benefit|advantage|disadvantage|role|impact)s?\b",
            text,
            re.IGNORECASE,
        )
    }


def _figures(text: str) -> set[str]:
    """Numbers of a text in digits and, up to twelve, in words."""
    return numbers(text) | {word.lower() for word in re.findall(
        r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn)\b",
        text, re.IGNORECASE)}


def _wrong_kind(question: str, answer: str) -> str:
    """Why the answer cannot answer this kind of question; empty when it can."""
    if _QUANTITY.search(question):
        if not _AMOUNT.search(answer):
            return "the question asks for an amount or a time, the answer gives none"
        if _figures(answer) and _figures(answer) <= _figures(question):
            return "the question already holds the figure it asks for"
    asked = re.match(r"what (?:is|are) (?:the |an? )?(.{2,60}?)\?$", question, re.IGNORECASE)
    if (
        asked
        and key(asked[1]) in key(answer)
        and not re.search(
            rf"{re.escape(asked[1])}\W*\s*(?::|is|are|was|were|means?|mean|refers?|stands? for|costs?|begins?|"
            rf"measures?)\s+"
            r"(?:an?|the|one|any|our|your|\W*\d|\w+ (?:of|that|which|who|for|in|to)\b)",
            answer,
            re.IGNORECASE,
        )
    ):
        return "the question asks what something is, the answer says something else about it"
    return ""


class Repeats:
    """Finds questions that were asked before: exactly, by word pairs within a passage, or by meaning where unit vectors
    are given (also among the questions of earlier makers)."""

    def __init__(self, known: Sequence[str], *, near: float, semantic: float | None, vectors: Any = None):
        """`vectors`: unit vectors of the known questions, [n, d]; None where there is no encoder."""
        self.near, self.semantic = near, semantic
        self._exact = {key(question) for question in known}
        self._inside: dict[str, list[str]] = {}
        self._vectors, self._names = vectors, list(known) if vectors is not None else []

    def find(self, question: str, passage: str, vector: Any) -> tuple[str, str]:
        """(reason, detail) when it repeats, ("", "") when it is new; remembers nothing."""
        if key(question) in self._exact:
            return "duplicate", "the same question was made before"
        for other in self._inside.get(passage, ()):
            if overlap(question, other) >= self.near:
                return "near-duplicate", f"like: {other}"
        if vector is not None and self._names and self.semantic is not None:
            cosines = self._vectors[:len(self._names)] @ vector
            best = int(cosines.argmax())
            if float(cosines[best]) >= self.semantic:
                return "near-duplicate", f"cosine {float(cosines[best]):.2f} to: {self._names[best]}"
        return "", ""

    def add(self, question: str, passage: str, vector: Any) -> None:
        self._exact.add(key(question))
        self._inside.setdefault(passage, []).append(question)
        if vector is not None:
            import numpy as np

            room, used = self._vectors, len(self._names)
            if room is None or used == len(room):  # twice the room, so that adding stays cheap
                room = np.zeros((max(64, 2 * used), len(vector)), np.float32)
                if used:
                    room[:used] = self._vectors
            room[used] = vector
            self._vectors = room
            self._names.append(question)
