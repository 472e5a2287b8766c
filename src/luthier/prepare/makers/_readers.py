"""Round trips: is the passage what answers the question, and how hard is it to find?

A reader with the passage must come to the answer; a reader without it must not, or the question tests what anybody
knows. The reader is a chat model, or a rule that picks sentences by their words (`extract`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from luthier.prepare.makers._teacher import NOT_THERE
from luthier.prepare.makers._text import content, numbers, sentences, support
from luthier.types import Passage

Difficulty = Literal["easy", "medium", "hard"]
AGREES = 0.5
"""Share of the answer's own words (those that are not in the question) in what a reader said, from which on both say
the same."""


def agrees(said: str, question: str, answer: str, language: str) -> bool:
    """Whether a reader's words hold what the answer adds to the question: half of its words, and a number of it."""
    if refuses(said):
        return False
    own = set(content(answer, language)) - set(content(question, language))
    figures = numbers(answer) - numbers(question)
    if figures and not figures & numbers(said):
        return False
    own = {word for word in own if not word[:1].isdigit()}
    return len(own & set(content(said, language))) >= AGREES * len(own)


def refuses(said: str) -> bool:
    """Whether a reader says that it cannot answer."""
    text = " ".join(said.upper().replace("’", "'").split())
    return not text or NOT_THERE in text or any(mark in text for mark in (
        "DO NOT KNOW", "DON'T KNOW", "NOT MENTIONED", "DOES NOT SAY", "DOES NOT MENTION", "NOT PROVIDED",
        "CANNOT ANSWER", "CAN'T ANSWER", "NO INFORMATION"))


def extract(question: str, passage: Passage, language: str, most: int = 2) -> str:
    """The sentences of a passage that share most with the question, each word counting by its rarity there."""
    pieces = sentences(passage.text)
    have = [set(content(piece, language)) for piece in pieces]
    often = Counter(word for words in have for word in words)
    asked = set(content(question, language))
    score = [sum(math.log(1 + len(pieces) / often[word]) for word in asked & words) for words in have]
    best = sorted(range(len(pieces)), key=lambda at: (-score[at], at))[:most]
    return "\n".join(pieces[at] for at in sorted(best) if score[at] > 0)


def answered_by(question: str, passages: Sequence[Passage], language: str, least: float = 0.9) -> Passage | None:
    """The passage with a sentence that holds nearly all of the question's words: the question may be answered there."""
    for passage in passages:
        heads = " ".join((passage.title, *passage.heading))
        for piece in sentences(passage.text):
            if support(question, f"{heads} {piece}", language) >= least and support(question, piece, language) >= 0.5:
                return passage
    return None


def difficulty(rank: int | None, question: str, source: str, language: str) -> Difficulty:
    """How hard a question is to search: by the rank of its passage, and the share of its words that stand there.

    easy: found first, and at least 80 % of its words stand in the passage; hard: rank 3 or later, or less than half of
    its words stand there; medium: the rest.
    """
    share = support(question, source, language)
    if rank is None or rank >= 3 or share < 0.5:
        return "hard"
    return "easy" if rank == 1 and share >= 0.8 else "medium"
