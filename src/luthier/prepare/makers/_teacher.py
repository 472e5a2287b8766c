"""What a teacher is asked and how its answers are read: prompts, focus sentences, robust parsing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.index.rag import neutralise
from luthier.prepare.makers._text import content, ends_well, is_item, one_line, plain, sentences, trim
from luthier.prepare.makers._words import word_set
from luthier.types import Message, Passage, digest

VERSION = 1
"""Raised when prompts or parsing change: answers cached for other prompts must not be read."""

Kind = Literal["fact", "how", "why", "definition", "list"]
_KINDS: dict[Kind, str] = {
    "fact": "a fact such as a name, number, date or place", "how": "how something is done or works",
    "why": "the reason for something", "definition": "what a term means", "list": "several things that belong together",
}
_LANGUAGES = {"de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "nl": "Dutch", "pt": "Portuguese",
              "pl": "Polish", "cs": "Czech", "sv": "Swedish", "da": "Danish", "fi": "Finnish", "tr": "Turkish",
              "ru": "Russian", "uk": "Ukrainian", "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ar": "Arabic"}
SHOWN = (  # three topics from no real business: a teacher that repeats them is caught as an echo
    ("Staff car park > Permits", "Parking permits are issued at the front desk and cost 12 dollars a month.",
     "How much does a parking permit cost?"),
    ("Kitchen rules", "The dishwasher must be emptied by the person who finds it clean.",
     "Who has to empty the dishwasher?"),
    ("Village library > Loans", "Books may be borrowed for four weeks and renewed twice.",
     "How long may I borrow a book from the library?"),
)


@dataclass(frozen=True)
class Candidate:
    """A question with its answer, before any check."""

    question: str
    answer: str
    focus: str = ""
    """The sentence of the passage that was given as the answer; empty when the teacher wrote the answer itself."""


def sentence_prompt(passage: Passage, focus: str, language: str) -> tuple[Message, ...]:
    """Three worked examples, then one sentence of the passage: the teacher words the question it answers."""
    def ask(topic: str, fact: str) -> Message:
        return Message(role="user", content=f"Topic: {topic}\nFact: {fact}\nWrite the question that this fact answers."
                                            f"{_in(language)}")

    turns: list[Message] = []
    for topic, fact, question in SHOWN if language == "en" else ():
        turns += [ask(topic, fact), Message(role="assistant", content=question)]
    topic = " > ".join(dict.fromkeys(part for part in (passage.title, *passage.heading) if part)) or passage.path
    return (*turns, ask(neutralise(one_line(topic)), neutralise(focus)))


def pairs_prompt(passage: Passage, count: int, kinds: Sequence[Kind], language: str) -> tuple[Message, ...]:
    """One request for `count` questions with answers, as JSON lines that survive chatter around them."""
    wanted = "; ".join(_KINDS[kind] for kind in kinds)
    return (Message(role="user", content=(
        f"Below is a part of a document. Write {count} question{'s' if count > 1 else ''} that a reader could ask "
        f"without seeing it, each with a complete answer.\n"
        f"- Ask about: {wanted}.\n"
        "- Name what a question is about; never write \"this text\", \"the passage\" or \"the document\".\n"
        "- Answer in one to three full sentences, only with facts that stand in the text.\n"
        "- Skip a kind for which the text holds nothing.\n"
        f"- Write one JSON object a line: {{\"question\": \"…\", \"answer\": \"…\"}}{_in(language)}\n\n"
        f"Text:\n\"\"\"\n{neutralise(passage.headed)}\n\"\"\""
    )),)


def _in(language: str) -> str:
    return f" Write in {_LANGUAGES.get(language, language)}." if language != "en" else ""


_NO_START = word_set(
    "it they this these that those he she his her their its such but and or so then also however therefore thus "
    "otherwise instead if both each here there another yes no please see note example for")


def focus_sentences(passage: Passage, count: int, language: str, seed: int) -> list[str]:
    """Up to `count` sentences of the passage that say something by themselves, spread by a hash, in reading order."""
    found = []
    for sentence in sentences(plain(passage.text)):
        length = len(sentence.split())
        if (6 <= length <= 45 and ends_well(sentence) and not sentence.endswith(("?", ":")) and "|" not in sentence
                and not is_item(sentence) and sentence.split()[0].strip(",").lower() not in _NO_START
                and len(set(content(sentence, language))) >= 4):
            found.append(sentence)
    chosen = sorted(found, key=lambda sentence: digest(str(seed), passage.id, sentence))[:count]
    return [sentence for sentence in dict.fromkeys(found) if sentence in chosen]


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


def read_pairs(text: str, count: int, finished: bool) -> list[Candidate]:
    """Pairs in a completion, in whatever of the usual shapes the teacher chose: JSON lines, a JSON array, `Q: … A: …`,
    numbered questions with answers below. A last pair that was cut off by the limit loses its unfinished sentence.
    """
    found = _from_json(text) or _from_lines(text)
    if found and not finished and not text.rstrip().endswith(("}", "]")):
        last = found[-1]
        found[-1] = Candidate(last.question, trim(last.answer, max(0, len(last.answer) - 1))
                              if not ends_well(last.answer) else last.answer)
    unique = {(one_line(c.question), c.answer.strip()): None for c in found}
    return [Candidate(question, answer) for question, answer in unique if question and answer][:count * 2]


def _from_json(text: str) -> list[Candidate]:
    decoder = json.JSONDecoder()
    found: list[Candidate] = []
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            data, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        at = end if isinstance(data, dict) and not any(isinstance(value, list) for value in data.values()) else at + 1
        if isinstance(data, dict):
            by_name = {str(name).strip().lower(): value for name, value in data.items()}
            question = by_name.get("question", by_name.get("q"))
            answer = by_name.get("answer", by_name.get("a"))
            if isinstance(question, str) and isinstance(answer, str):
                found.append(Candidate(_bare(question), answer.strip()))
    return found


_ASKS = re.compile(r"^\W*(?:(?:Q(?:uestion)?|F(?:rage)?)\s*\d*\s*[:.)]|\d+\s*[.)]\s*(?=.*[?？]))\W*", re.IGNORECASE)
_TELLS = re.compile(r"^\W*(?:A(?:nswer)?|Antwort)\s*\d*\s*[:.)]\W*", re.IGNORECASE)


def _from_lines(text: str) -> list[Candidate]:
    found: list[Candidate] = []
    question, answer = "", []

    def done() -> None:
        if question and answer:
            found.append(Candidate(question, one_line(" ".join(answer))))

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
