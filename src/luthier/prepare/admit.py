"""Which examples stay: repeats, the cap for each document, and the leak check."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from luthier.index.rag import bare_question
from luthier.prepare.keys import key_of, shared
from luthier.prepare.leak import find_leaks, trained_texts
from luthier.prepare.split import Splits
from luthier.prepare.text import normalise, words
from luthier.progress import Progress, Silent, passing
from luthier.shelf import Again, Memory, Sink, view
from luthier.types import Dropped, Example, Passage, digest

_ID = re.compile(r"[0-9a-f]{16}")
_CITATION = re.compile(r"\s*\[\d{1,3}\]")
_ORDER = {"train": 0, "validation": 1, "test": 2}
_VARIANTS = frozenset({"grounded", "unanswerable"})
"""The same question may be asked without passages, with them, and with passages that do not answer it."""


class Admission:
    """Takes examples and lets only one of those that repeat each other stay.

    Equal questions (case, spacing and punctuation aside) and equal content words with the same answer are repeats,
    within each variant (plain, grounded, unanswerable). Of two, the held-out one stays (test before validation before
    train), else the first, so the order of the makers decides.

    Of an example that shares neither with another one, 16 bytes are kept in memory; only the others are compared.
    """

    def __init__(self, dropped: Sink[Dropped], memory: Memory | None = None):
        self._shelf = (memory or Memory()).examples()
        self._dropped = dropped
        self._keys = array("Q"), array("Q")  # of each example: hashes of what it asks, and of what it means
        self._compared: set[int] = set()
        self._gone: set[int] = set()
        self._asked: dict[tuple[str, ...], int] = {}
        self._meant: dict[tuple[str, ...], int] = {}

    @property
    def examples(self) -> Sequence[Example]:
        """What stays, in the order of arrival."""
        return view(self._shelf, (at for at in range(len(self._shelf)) if at not in self._gone))

    def add(self, examples: Iterable[Example], *, yielding: Callable[[Example], bool] = lambda example: False) -> None:
        """Keep each example, or drop it or the one that it repeats; `yielding`: it goes, whatever the splits."""
        begin = len(self._shelf)
        for example in examples:
            self._shelf.append(example)
            for keys, said in zip(self._keys, _said(example)):
                keys.append(key_of("\0".join(said)))
        several = np.flatnonzero(shared(self._keys[0]) | shared(self._keys[1])).tolist()
        for at in several:
            example = self._shelf[at]
            if at >= begin:
                self._compare(at, example, yielding=yielding(example))
            elif at not in self._compared:  # until now it was the only one of its kind
                for known, said in zip((self._asked, self._meant), _said(example)):
                    known.setdefault(said, at)
        self._compared.update(several)

    def _compare(self, at: int, example: Example, *, yielding: bool) -> None:
        asked, meant = _said(example)
        before, reason = self._asked.get(asked), "duplicate-question"
        if before is None and example.target is not None:
            before, reason = self._meant.get(meant), "near-duplicate-question"
        if before is not None:
            other = self._shelf[before]
            if yielding or _ORDER[example.split] <= _ORDER[other.split]:
                self._drop(at, example, other, reason)
                return
            if before not in self._gone:
                self._drop(before, other, example, reason)
        self._asked[asked] = self._meant[meant] = at

    def _drop(self, at: int, gone: Example, stays: Example, reason: str) -> None:
        self._gone.add(at)
        other = "" if gone.target == stays.target else ", which has another answer"
        source = stays.origin.where or stays.origin.step
        self._dropped.append(Dropped(item=gone.id, step=gone.origin.step, reason=reason,
                                     detail=f"{gone.origin.where}: repeats {stays.id} ({source}){other}",
                                     text=gone.question[:300]))


def _said(example: Example) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what an example asks, what it means) in comparable form."""
    variant = tuple(sorted(_VARIANTS & set(example.tags)))
    history = "" if isinstance(example.input, str) else "\n".join(
        turn.content for turn in example.input[:-1] if turn.role != "system")
    before = normalise(history)
    return ((*variant, before, normalise(bare_question(example.question))),
            (*variant, before, content_words(example), normalise(example.target or "")))


def content_words(example: Example) -> str:
    """The question's longer words, codes and numbers, sorted: equal for questions that differ in function words."""
    question = unicodedata.normalize("NFKC", bare_question(example.question))
    kept = {word for word in words(question) if len(word) > 3 or any(sign.isdigit() for sign in word)}
    kept |= {word.casefold() for word in question.split() if len(word) > 1 and word.strip("?!.,;:\"'()").isupper()}
    return " ".join(sorted(kept)) or normalise(question)


def cap(examples: Sequence[Example], most: int, seed: int, dropped: Sink[Dropped]) -> Sequence[Example]:
    """At most `most` examples a document, taken in turn from its makers, by hash within one maker."""
    groups: dict[str, dict[str, list[tuple[bytes, int]]]] = {}
    kept = array("q")
    for at, example in enumerate(examples):
        if example.origin.maker == "human" or not example.origin.documents:
            kept.append(at)
        else:
            place = hashlib.sha256(f"{seed}\0{example.id}".encode()).digest()
            steps = groups.setdefault(example.origin.documents[0], {})
            steps.setdefault(example.origin.step, []).append((place, at))
    for steps in groups.values():
        queues = [sorted(inside) for _, inside in sorted(steps.items())]
        longest = max(map(len, queues))
        turns = [queue[turn][1] for turn in range(longest) for queue in queues if turn < len(queue)]
        kept.extend(turns[:most])
        for at in turns[most:]:
            example = examples[at]
            dropped.append(Dropped(item=example.id, step=example.origin.step, reason="over-document-cap",
                                   detail=example.origin.where, text=example.question[:300]))
    return view(examples, kept)


def drop_leaks(examples: Sequence[Example], passages: Sequence[Passage], splits: Splits, dropped: Sink[Dropped],
               memory: Memory | None = None, progress: Progress = Silent()) -> Sequence[Example]:
    """Remove train examples that repeat validation or test text, then validation examples that repeat test text.

    An answer made from a document that says the same, word for word, as a held-out one is the same fact asked about
    another page (an abbreviation that every page spells out): it goes too, as `leak-answer`.
    """
    kept = examples
    for held_split, checked in (("test", ("train", "validation")), ("validation", ("train",))):
        held_of, row_of = array("q"), array("q")  # number of each held-out text's and each checked text's example

        def held(kept: Sequence[Example] = kept, split: str = held_split, numbers: array[int] = held_of
                 ) -> Iterator[str]:
            del numbers[:]
            for at, example in enumerate(kept):
                if example.split == split:
                    for text in trained_texts(example)[:1]:
                        numbers.append(at)
                        yield text
            for at, passage in enumerate(passages):
                if splits.of_passage[passage.id] == split:
                    numbers.append(-1 - at)
                    yield passage.text

        def rows(kept: Sequence[Example] = kept, checked: tuple[str, ...] = checked, numbers: array[int] = row_of
                 ) -> Iterator[str]:
            del numbers[:]
            for at, example in enumerate(kept):
                if example.split in checked:
                    for text in trained_texts(example):
                        numbers.append(at)
                        yield text

        gone: dict[int, Dropped] = {}
        answers = {digest(fact): at for at, example in enumerate(kept)
                   if example.split == held_split and (fact := _fact(example))}
        for at, example in enumerate(kept) if answers else ():
            fact = _fact(example) if example.split in checked else ""
            if fact and (same := answers.get(digest(fact))) is not None:
                gone[at] = Dropped(item=example.id, step=example.origin.step, reason="leak-answer",
                                   detail=f"{example.origin.where}: the answer of {held_split} example "
                                          f"{kept[same].id}", text=example.question[:300])
        with passing(progress, f"compare with {held_split} texts", Again(rows), len(kept), passes=True) as texts:
            leaks = find_leaks(texts, Again(held), memory)
        for leak in leaks:
            at = row_of[leak.item]
            if at not in gone:
                example, number = kept[at], held_of[leak.held]
                other = kept[number].id if number >= 0 else passages[-1 - number].id
                gone[at] = Dropped(
                    item=example.id, step=example.origin.step, reason=leak.reason,
                    detail=f"{example.origin.where}: {leak.share:.0%} of it is {held_split} text {other}",
                    text=example.question[:300])
        dropped.extend(gone[at] for at in sorted(gone))
        kept = view(kept, (at for at in range(len(kept)) if at not in gone)) if gone else kept
    return kept


def _fact(example: Example) -> str:
    """The answer of a document's example in comparable form; empty where equal answers mean nothing: refusals, a
    person's own pairs, and answers of fewer than four words ("Yes, it is")."""
    if example.target is None or "unanswerable" in example.tags or not example.origin.passages:
        return ""
    said = normalise(_CITATION.sub("", example.target))
    return said if len(said.split()) >= 4 else ""


def in_split_order(examples: Sequence[Example], passages: Sequence[Passage]) -> Sequence[Example]:
    """The examples by split, then document and position, then maker; what has no passage comes last, by where it
    stands. `passages` are in the order of path and place."""
    rank: dict[str, int] = {}
    place: tuple[str, tuple[int, int]] | None = None
    number = 0
    for passage in passages:
        if (here := (passage.path, passage.spans)) != place:
            place, number = here, number + 1
        rank[passage.id] = number

    # Columns of numbers, 29 bytes a row: tuples of strings take ten times as much.
    split, source, step, where, name = array("B"), array("Q"), array("L"), array("Q"), array("Q")
    steps: dict[str, int] = {}
    for example in examples:
        at = rank.get(example.origin.passages[0]) if example.origin.passages else None
        split.append(2 * _ORDER[example.split] + (at is None))
        source.append(at or 0)
        step.append(steps.setdefault(example.origin.step, len(steps)))
        where.append(int(digest(example.origin.where), 16))
        name.append(int(example.id, 16) if _ID.fullmatch(example.id) else key_of(example.id))
    alphabetic = np.argsort(np.argsort(np.array([*steps], dtype=object))) if steps else np.zeros(0, np.int64)
    columns = (np.asarray(name), np.asarray(where), alphabetic[np.asarray(step)], np.asarray(source), np.asarray(split))
    return view(examples, np.lexsort(columns).tolist() if len(split) else ())
