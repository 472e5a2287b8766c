"""Reading what a teacher replied: questions, answers and quotes in whatever of the usual shapes it chose."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.prepare.makers._kinds import Kind
from luthier.prepare.makers._text import ends_well, one_line, plain, trim


@dataclass(frozen=True)
class Candidate:
    """A question with its answer, before any check."""

    question: str
    answer: str
    """Empty for a question that the passage shall not answer."""
    focus: str = ""
    """The piece of the passage that was given as the answer; empty when the teacher wrote the answer itself."""
    kind: str = "fact"
    """What was asked for: one of `Kind`."""
    quote: str = ""
    """What the teacher says it copied from the passage; not yet looked up there."""


def read_question(text: str) -> str:
    """The first question in a completion; empty when there is none."""
    for line in text.strip().split("\n"):
        line = _bare(line)
        cut = re.match(r"[^?？]{6,300}?[?？]", line)
        if cut:
            question = cut.group()
            inner = re.search(r"[:\"“]\s*[\"“]?([A-ZÀ-Þ][^\"“:]{5,}[?？])$", question)
            return one_line(inner[1] if inner and "question" in question.lower() else question).strip(" \"“”'")
    return ""


def read_pairs(text: str, kinds: Sequence[Kind], finished: bool) -> list[Candidate]:
    """Pairs in a completion, in whatever of the usual shapes the teacher chose: JSON lines, a JSON array, `Q: … A: …`,
    numbered questions with answers below. A last pair that was cut off by the limit loses its unfinished sentence.

    `kinds` is what was asked for, in order: a pair that does not name its kind has that of its place. At most twice as
    many pairs as were asked for are read.
    """
    found = _from_json(text) or _from_lines(text)
    if found and not finished and not text.rstrip().endswith(("}", "]")):
        last = found[-1]
        found[-1] = replace(last, answer=trim(last.answer, max(0, len(last.answer) - 1))
                            if not ends_well(last.answer) else last.answer)
    unique: dict[tuple[str, str], Candidate] = {}
    for at, one in enumerate(found):
        kind = one.kind if one.kind in kinds else kinds[min(at, len(kinds) - 1)]
        one = replace(one, question=one_line(one.question), answer=one.answer.strip(), kind=kind)
        if one.question and one.answer:
            unique.setdefault((one.question, one.answer), one)
    return [*unique.values()][:len(kinds) * 2]


def read_unanswerable(text: str, count: int) -> list[Candidate]:
    """Questions in a completion, without answers."""
    found = [c.question for c in _from_json(text, need_answer=False)]
    found = found or [question for line in text.split("\n") if (question := read_question(line))]
    return [Candidate(question, "", kind="unanswerable") for question in dict.fromkeys(map(one_line, found)) if question
            ][:count]


def _from_json(text: str, need_answer: bool = True) -> list[Candidate]:
    decoder = json.JSONDecoder()
    found: list[Candidate] = []
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            data, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        by_name = {str(name).strip().lower(): value for name, value in data.items()} if isinstance(data, dict) else {}
        question, answer = by_name.get("question", by_name.get("q")), _text(by_name.get("answer", by_name.get("a")))
        if isinstance(question, str) and (answer or not need_answer):
            found.append(Candidate(_bare(question), answer, kind=str(by_name.get("kind", "")).strip().lower(),
                                   quote=_text(by_name.get("quote"))))
            at = end
        else:
            at += 1  # a list of pairs inside an object, say
    return found


def _text(value: Any) -> str:
    """A string; a list of them as a list of lines."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(f"- {one_line(one)}" for one in value if one.strip())
    return value.strip() if isinstance(value, str) else ""


_ASKS = re.compile(r"^\W*(?:(?:Q(?:uestion)?|F(?:rage)?)\s*\d*\s*[:.)]|\d+\s*[.)]\s*(?=.*[?？]))\W*", re.IGNORECASE)
_TELLS = re.compile(r"^\W*(?:A(?:nswer)?|Antwort)\s*\d*\s*[:.)]\W*", re.IGNORECASE)


def _from_lines(text: str) -> list[Candidate]:
    found: list[Candidate] = []
    question, answer = "", []

    def done() -> None:
        if question and answer:
            found.append(Candidate(question, one_line(" ".join(answer)), kind=""))

    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            continue
        if _ASKS.match(line) or (line.rstrip("*").endswith(("?", "？")) and not _TELLS.match(line)):
            done()
            whole = _ASKS.sub("", line, count=1)
            cut = re.match(r"(.+?[?？])[\"*]*\s+(\S.*)$", whole)
            question, answer = (_bare(cut[1]), [_TELLS.sub("", cut[2])]) if cut else (_bare(whole), [])
        elif question:
            answer.append(_TELLS.sub("", line, count=1))
    done()
    return found


def _bare(line: str) -> str:
    line = re.sub(
        r"^\W*(?:Q(?:uestion)?|Frage)\s*\d*\s*:\s*|^\s*(?:\d+[.)]|[-*•])\s+", "", line.strip(), flags=re.IGNORECASE
    )
    return line.strip(" \t\"“”*_")


_LEAD = re.compile(
    r"^(?:(?:according to|based on|as (?:stated|mentioned|described) in|in) (?:the|this) (?:above |given |provided )?"
    r"(?:text|passage|document|context|article|paragraph|section|information)(?: (?:above|provided|given))?,?\s*|"
    r"the (?:text|passage|document|article) (?:states|says|mentions|explains|notes) that\s+|answer:\s*)",
    re.IGNORECASE)


def tidy_answer(answer: str) -> str:
    """The answer as plain text, without "According to the text," in front."""
    text = plain(answer).strip(" \"“”")
    bare = _LEAD.sub("", text, count=1)
    return bare[:1].upper() + bare[1:] if bare != text else text
