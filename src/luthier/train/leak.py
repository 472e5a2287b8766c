"""Contract point 7: no test or validation document, nor a near-duplicate of its text, is in train."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from luthier.index.rag import bare_question
from luthier.train.contract import Finding
from luthier.types import Example

SHINGLE = 5
SIMILAR = 0.8
"""Jaccard similarity of word 5-grams above which two examples are the same text."""


def check_leak(train: Sequence[Example], held: Sequence[Example], *,
               disjoint: Literal["document", "passage"] = "document") -> Finding:
    """Compare the train examples with those of validation and test: by the documents and passages they come from,
    and by their own words (question and answer; passages in a prompt are compared by id)."""
    seen_passages = {passage for example in train for passage in example.origin.passages}
    seen_documents = {document for example in train for document in example.origin.documents}
    by_origin = []
    for example in held:
        passages = [p for p in example.origin.passages if p in seen_passages]
        documents = [d for d in example.origin.documents if d in seen_documents]
        if passages or (documents and disjoint == "document"):
            by_origin.append((example.id, (passages or documents)[0]))
    copies = near_copies(train, held)
    facts: dict[str, Any] = {"held": len(held), "by_origin": len(by_origin), "by_text": len(copies),
                             "disjoint": disjoint, "similar": SIMILAR}
    if by_origin or copies:
        parts = []
        if by_origin:
            what = "document" if disjoint == "document" else "passage"
            parts.append(f"{len(by_origin)} held-out examples come from a {what} that is also trained on, such as "
                         f"{by_origin[0][0]} ({by_origin[0][1]})")
        if copies:
            parts.append(f"{len(copies)} held-out examples are near-copies of train examples, such as "
                         f"{copies[0][0]} of {copies[0][1]}")
        return Finding(7, "violated", "; ".join(parts) + "; run prepare again or remove them", facts)
    return Finding(7, "kept", f"no {disjoint} of the {len(held):,} validation and test examples, and no near-copy of "
                   "their text, is in train", facts)


def near_copies(train: Sequence[Example], held: Sequence[Example]) -> list[tuple[str, str]]:
    """Pairs (held-out example, train example) with nearly the same words, at most one per held-out example.

    Exact: an inverted index over hashed word 5-grams, not an estimate. Texts shorter than one shingle are compared
    whole.
    """
    where: dict[int, list[int]] = defaultdict(list)
    sizes = []
    for number, example in enumerate(train):
        marks = _shingles(_words_of(example))
        sizes.append(len(marks))
        for mark in marks:
            where[mark].append(number)
    found = []
    for example in held:
        marks = _shingles(_words_of(example))
        shared: dict[int, int] = defaultdict(int)
        for mark in marks:
            for number in where.get(mark, ()):
                shared[number] += 1
        for number, count in shared.items():
            if count / (len(marks) + sizes[number] - count) >= SIMILAR:
                found.append((example.id, train[number].id))
                break
    return found


def _words_of(example: Example) -> list[str]:
    """The words that would be a leak: the question and, unless it is the refusal, the answer."""
    answer = "" if example.target is None or "unanswerable" in example.tags else example.target
    question = bare_question(example.question)  # passages in a prompt are compared by their ids
    return re.findall(r"\w+", f"{question} {answer}".lower())


def _shingles(words: Sequence[str]) -> set[int]:
    if len(words) < SHINGLE:
        return {hash(tuple(words))}
    return {hash(tuple(words[start:start + SHINGLE])) for start in range(len(words) - SHINGLE + 1)}
