"""The leak check: nothing that is trained on may repeat what the result is measured on.

A text leaks when half of its 13-word runs (of the shorter text's, at least four) stand in one held-out text, or when
its 3-word shingles overlap a held-out text's by Jaccard 0.8. Thirteen words follow GPT-3's decontamination (Brown et
al. 2020, appendix C), which drops at the first shared run; a share spares texts that only quote the same boilerplate.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from luthier.index.rag import bare_question
from luthier.prepare.text import words
from luthier.types import Example

RUN = 13
SHARE = 0.5
LEAST = 4
NEAR = 0.8


class Leak(NamedTuple):
    """A text that repeats a held-out one."""

    item: int
    held: int
    """Number of the held-out text."""
    share: float
    """Shared runs as a part of the shorter text's, or the Jaccard similarity; the reason says which."""
    reason: str
    """`leak-runs` or `leak-near`."""


def find_leaks(texts: Sequence[str], held: Sequence[str]) -> list[Leak]:
    """The worst leak of each of `texts` that has one, by item number."""
    from luthier.prepare.dedupe import near_between

    found: dict[int, Leak] = {}
    index: dict[int, list[int]] = {}
    sizes = []
    for at, text in enumerate(held):
        runs = _runs(text)
        sizes.append(len(runs))
        for run in runs:
            index.setdefault(run, []).append(at)
    for at, text in enumerate(texts):
        runs = _runs(text)
        shared: Counter[int] = Counter()
        for run in runs:
            shared.update(index.get(run, ()))
        for other, count in sorted(shared.items()):
            share = count / min(len(runs), sizes[other])
            if count >= LEAST and share >= SHARE and (at not in found or share > found[at].share):
                found[at] = Leak(at, other, share, "leak-runs")
    for at, other, share in near_between(texts, held, NEAR):
        if at not in found:
            found[at] = Leak(at, other, share, "leak-near")
    return [found[at] for at in sorted(found)]


def trained_texts(example: Example) -> list[str]:
    """What a model reads and learns from an example: the pair, and everything else that stands in its prompt."""
    if isinstance(example.input, str):
        return [example.input]
    question = bare_question(example.question)
    answer = "" if "unanswerable" in example.tags else example.target or ""  # all refusals are the same words
    pair = f"{question}\n{answer}"
    if question == example.question and sum(message.role != "system" for message in example.input) == 1:
        return [pair]
    turns = [message.content for message in example.input if message.role != "system"]
    return [pair, *turns]


def _runs(text: str) -> set[int]:
    """Hashes of the distinct 13-word runs; none for a shorter text."""
    tokens = words(text)
    return {
        int.from_bytes(hashlib.blake2b(" ".join(tokens[at : at + RUN]).encode("utf-8", "surrogatepass"),
                                       digest_size=8).digest(), "big")
        for at in range(len(tokens) - RUN + 1)
    }
