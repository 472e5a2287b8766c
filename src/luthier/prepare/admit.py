"""Which examples stay: repeats, the cap for each document, and the leak check."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from luthier.index.rag import bare_question
from luthier.prepare.leak import find_leaks, trained_texts
from luthier.prepare.split import Splits
from luthier.prepare.text import normalise, words
from luthier.types import Dropped, Example, Passage, digest

_CITATION = re.compile(r"\s*\[\d{1,3}\]")
_ORDER = {"train": 0, "validation": 1, "test": 2}
_VARIANTS = frozenset({"grounded", "unanswerable"})
"""The same question may be asked without passages, with them, and with passages that do not answer it."""


class Admission:
    """Takes examples one by one and lets only one of those that repeat each other stay.

    Equal questions (case, spacing and punctuation aside) and equal content words with the same answer are repeats,
    within each variant (plain, grounded, unanswerable). Of two, the held-out one stays (test before validation before
    train), else the first, so the order of the makers decides.
    """

    def __init__(self, dropped: list[Dropped]):
        self._kept: dict[str, Example] = {}
        self._dropped = dropped
        self._asked: dict[tuple[str, ...], Example] = {}
        self._meant: dict[tuple[str, ...], Example] = {}

    @property
    def examples(self) -> list[Example]:
        """What stays, in the order of arrival."""
        return list(self._kept.values())

    def add(self, example: Example, *, yielding: bool = False) -> None:
        """Keep the example, or drop it or the one that it repeats; `yielding`: it goes, whatever the splits."""
        variant = tuple(sorted(_VARIANTS & set(example.tags)))
        history = "" if isinstance(example.input, str) else "\n".join(
            turn.content for turn in example.input[:-1] if turn.role != "system")
        asked = (*variant, normalise(history), normalise(bare_question(example.question)))
        meant = (*variant, normalise(history), content_words(example), normalise(example.target or ""))
        before, reason = self._asked.get(asked), "duplicate-question"
        if before is None and example.target is not None:
            before, reason = self._meant.get(meant), "near-duplicate-question"
        if before is not None:
            if yielding or _ORDER[example.split] <= _ORDER[before.split]:
                self._drop(example, before, reason)
                return
            self._drop(before, example, reason)
            self._kept.pop(before.id, None)
        self._asked[asked] = self._meant[meant] = example
        self._kept[example.id] = example

    def _drop(self, gone: Example, stays: Example, reason: str) -> None:
        other = "" if gone.target == stays.target else ", which has another answer"
        source = stays.origin.where or stays.origin.step
        self._dropped.append(Dropped(item=gone.id, step=gone.origin.step, reason=reason,
                                     detail=f"{gone.origin.where}: repeats {stays.id} ({source}){other}",
                                     text=gone.question[:300]))


def content_words(example: Example) -> str:
    """The question's longer words, codes and numbers, sorted: equal for questions that differ in function words."""
    question = unicodedata.normalize("NFKC", bare_question(example.question))
    kept = {word for word in words(question) if len(word) > 3 or any(sign.isdigit() for sign in word)}
    kept |= {word.casefold() for word in question.split() if len(word) > 1 and word.strip("?!.,;:\"'()").isupper()}
    return " ".join(sorted(kept)) or normalise(question)


def cap(examples: Sequence[Example], most: int, seed: int, dropped: list[Dropped]) -> list[Example]:
    """At most `most` examples a document, taken in turn from its makers, by hash within one maker."""
    groups: dict[str, dict[str, list[Example]]] = {}
    kept: list[Example] = []
    for example in examples:
        if example.origin.maker == "human" or not example.origin.documents:
            kept.append(example)
        else:
            groups.setdefault(example.origin.documents[0], {}).setdefault(example.origin.step, []).append(example)
    for steps in groups.values():
        queues = [sorted(inside, key=lambda e: hashlib.sha256(f"{seed}\0{e.id}".encode()).digest())
                  for _, inside in sorted(steps.items())]
        longest = max(map(len, queues))
        turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
        kept.extend(turns[:most])
        dropped.extend(Dropped(item=example.id, step=example.origin.step, reason="over-document-cap",
                               detail=example.origin.where, text=example.question[:300]) for example in turns[most:])
    return kept


def drop_leaks(examples: Sequence[Example], passages: Sequence[Passage], splits: Splits, dropped: list[Dropped]
               ) -> list[Example]:
    """Remove train examples that repeat validation or test text, then validation examples that repeat test text.

    An answer made from a document that says the same, word for word, as a held-out one is the same fact asked about
    another page (an abbreviation that every page spells out): it goes too, as `leak-answer`.
    """
    kept = list(examples)
    for held_split, checked in (("test", ("train", "validation")), ("validation", ("train",))):
        held: list[tuple[str, str]] = [
            (text, example.id) for example in kept if example.split == held_split for text in trained_texts(example)[:1]
        ]
        held += [(passage.text, passage.id) for passage in passages if splits.of_passage[passage.id] == held_split]
        rows = [(at, text) for at, example in enumerate(kept) if example.split in checked
                for text in trained_texts(example)]
        gone: dict[int, Dropped] = {}
        answers = {fact: example.id for example in kept if example.split == held_split and (fact := _fact(example))}
        for at, example in enumerate(kept):
            if example.split in checked and (fact := _fact(example)) in answers:
                gone[at] = Dropped(item=example.id, step=example.origin.step, reason="leak-answer",
                                   detail=f"{example.origin.where}: the answer of {held_split} example {answers[fact]}",
                                   text=example.question[:300])
        for leak in find_leaks([text for _, text in rows], [text for text, _ in held]):
            at = rows[leak.item][0]
            gone.setdefault(at, Dropped(
                item=kept[at].id, step=kept[at].origin.step, reason=leak.reason,
                detail=f"{kept[at].origin.where}: {leak.share:.0%} of it is {held_split} text {held[leak.held][1]}",
                text=kept[at].question[:300]))
        dropped.extend(gone[at] for at in sorted(gone))
        kept = [example for at, example in enumerate(kept) if at not in gone]
    return kept


def _fact(example: Example) -> str:
    """The answer of a document's example in comparable form; empty where equal answers mean nothing: refusals, a
    person's own pairs, and answers of fewer than four words ("Yes, it is")."""
    if example.target is None or "unanswerable" in example.tags or not example.origin.passages:
        return ""
    said = normalise(_CITATION.sub("", example.target))
    return said if len(said.split()) >= 4 else ""


def example_order(passages: Sequence[Passage]) -> Callable[[Example], Any]:
    """Sort key: split, then document and position, then maker; what has no passage comes last, by where it stands."""
    place = {passage.id: (passage.path, passage.spans) for passage in passages}

    def key(example: Example) -> Any:
        source = place.get(example.origin.passages[0]) if example.origin.passages else None
        return (_ORDER[example.split], source is None, source or ("", (0, 0)), example.origin.step,
                digest(example.origin.where), example.id)

    return key
