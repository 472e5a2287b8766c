"""The frozen split of labelled rows, and what it keeps apart: no row that is trained on repeats a held-out one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from luthier.errors import DataError
from luthier.prepare.base import OWN_SPLIT, TOGETHER, Prepare
from luthier.prepare.keys import key_of
from luthier.prepare.label_repeats import UNLABELLED, drop
from luthier.prepare.labels import OUT_OF_SCOPE, labels_of
from luthier.prepare.leak import find_leaks
from luthier.prepare.split import unit_interval
from luthier.prepare.stratify import stratify
from luthier.prepare.text import normalise, words
from luthier.progress import Progress, Silent, passing
from luthier.shelf import Again, Memory, Sink, view
from luthier.types import Dropped, Example, Split

LONG_RUN, LONG_NEAR = 16, 20
"""Words from which on a text is compared by its 13-word runs, and by its likeness: two short customer questions that
differ in a word are two questions; equal ones are always found."""


def same_words(example: Example) -> str:
    """What two texts share that say the same: the words, case and punctuation aside; of a text without words, itself.
    Shared with the training contract."""
    text = str(example.input)
    return normalise(text) or text.strip()


def group_of(example: Example) -> str:
    """What must stay in one split with others; empty for a row by itself."""
    group = example.groups.get(TOGETHER, "")
    return group or (f"document={example.origin.documents[0]}" if example.origin.documents else "")


def assign(examples: Sequence[Example], spec: Prepare, given: Mapping[str, tuple[str, ...]],
           content: Callable[[Example], str]) -> Iterator[Example]:
    """The user's own split where the data gives one; the shares for the rest, by group and class.

    A split that the data names nowhere (a file of train and one of test rows has no validation) gets its share of the
    rows that name none or, where all name one, of the train rows. `given` are the labels that corrected rows had in the
    data, by content: a correction does not move the split. Of each row 40 bytes are kept in memory.
    """
    own: set[Split] = set()
    some_open = False
    of_group: dict[str, Split] = {}  # a group whose split the data names stays whole
    for example in examples:
        group = group_of(example)
        if spec.split.by == "document" and not group:
            raise DataError("prepare.split.by is 'document', but some rows name no document or group; name the column "
                            "as `group_by` of the maker, or set by: auto")
        if UNLABELLED in example.tags:
            continue
        if OWN_SPLIT in example.tags and example.split != "train" and group:
            of_group[group] = example.split
        if OUT_OF_SCOPE not in example.tags:
            if OWN_SPLIT in example.tags:
                own.add(example.split)
            else:
                some_open = True

    def is_open(example: Example) -> bool:
        if UNLABELLED in example.tags or OUT_OF_SCOPE in example.tags:
            return False
        return OWN_SPLIT not in example.tags if some_open else example.split == "train"

    shares: dict[Split, float] = {"test": spec.split.test, "validation": spec.split.validation}
    shares = {split: share for split, share in shares.items() if share > 0 and split not in own}
    shares["train"] = 1 - sum(shares.values())
    units = _Units()
    for example in examples:
        if is_open(example) and (group := group_of(example)) not in of_group:
            said = content(example)
            units.add(group or f"row={said}", given.get(said, labels_of(example)) or ("",), spec.seed)
    units.settle(shares)
    for example in examples:
        split: Split | None = None
        if UNLABELLED not in example.tags:
            group = group_of(example)
            beside = OUT_OF_SCOPE in example.tags and OWN_SPLIT not in example.tags
            if beside or (is_open(example) and group not in of_group):
                unit = group or f"row={content(example)}"
                split = units.split_of(unit) or (_held_split(unit, spec) if beside else None)
            if OWN_SPLIT not in example.tags and group in of_group:
                split = of_group[group]
        yield example if split is None else replace(example, split=split)


class _Units:
    """What is split as a whole, each known by 64 bits."""

    def __init__(self) -> None:
        self._keys, self._places = array("Q"), array("d")
        self._labels: list[tuple[str, ...]] = []
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._split: list[Split] = []

    def add(self, name: str, labels: tuple[str, ...], seed: int) -> None:
        """Count a row's labels to the unit."""
        self._keys.append(key_of(name))
        self._places.append(unit_interval(name, seed))
        self._labels.append(self._known.setdefault(labels, labels))

    def settle(self, shares: Mapping[Split, float]) -> None:
        """Decide about all of them."""
        self._unit, first, number = np.unique(np.frombuffer(self._keys, np.uint64) if self._keys else
                                              np.zeros(0, np.uint64), return_index=True, return_inverse=True)
        labels: list[tuple[str, ...]] = [()] * len(self._unit)
        for at, unit in enumerate(number.tolist()):
            labels[unit] = (*labels[unit], *self._labels[at]) if labels[unit] else self._labels[at]
        self._split = stratify([self._places[at] for at in first.tolist()], labels, shares)
        del self._keys, self._places, self._labels

    def split_of(self, name: str) -> Split | None:
        key = np.uint64(key_of(name))
        at = int(np.searchsorted(self._unit, key))
        return self._split[at] if at < len(self._unit) and self._unit[at] == key else None


def _held_split(unit: str, spec: Prepare) -> Split:
    """Validation or test, in the proportion of their shares: in train, a row of none of the classes would be of no
    use."""
    held = spec.split.test + spec.split.validation
    return "validation" if held and unit_interval(unit, spec.seed) >= spec.split.test / held else "test"


def drop_leaks(examples: Sequence[Example], dropped: Sink[Dropped], memory: Memory | None = None,
               progress: Progress = Silent()) -> Sequence[Example]:
    """Remove train (and unlabelled) rows that nearly repeat validation or test texts, or share a group with them, then
    validation rows that do so with the test."""
    kept = examples
    for held_split, checked in (("test", ("train", "validation")), ("validation", ("train",))):
        held = view(kept, (at for at, example in enumerate(kept) if example.split == held_split))
        groups: dict[str, int] = {}
        said: dict[int, int] = {}
        for at, example in enumerate(held):
            if group := group_of(example):
                groups[group] = at
            if not example.image:
                said[key_of(same_words(example))] = at

        def rows(kept: Sequence[Example] = kept, checked: tuple[str, ...] = checked) -> Iterator[tuple[int, Example]]:
            return ((at, example) for at, example in enumerate(kept) if example.split in checked)

        gone: dict[int, Dropped] = {}
        for at, example in rows():
            if (group := group_of(example)) in groups:
                gone[at] = drop(example, "leak-group", f"{group} is in {held_split}, too ({held[groups[group]].id})")
            elif not example.image and (same := said.get(key_of(same_words(example)))) is not None:
                # Tagged texts that differ in case only are two rows, but not across splits.
                gone[at] = drop(example, "leak-same", f"the same words as {_told(held_split, held[same])}")
        with passing(progress, f"compare with {held_split} rows", Again(rows), len(kept), passes=True) as some:
            repeats = list(near_repeats(some, held, memory))
        for at, other, share, reason in repeats:
            if at not in gone:
                gone[at] = drop(kept[at], reason, f"{share:.0%} of it is {_told(held_split, other)}")
        dropped.extend(gone[at] for at in sorted(gone))
        kept = view(kept, (at for at in range(len(kept)) if at not in gone)) if gone else kept
    return kept


def _told(split: str, other: Example) -> str:
    return f"{split} text {other.id} ({other.origin.where})"


def near_repeats(rows: Iterable[tuple[int, Example]], held: Iterable[Example], memory: Memory | None = None
                 ) -> Iterator[tuple[int, Example, float, str]]:
    """(number, the held-out row, share, reason) of each of the numbered rows whose longer text repeats a held-out one.

    Both are gone through several times. Shared with the training contract, so that both judge alike.
    """
    row_of, words_of, held_of = array("q"), array("q"), array("q")

    def texts() -> Iterator[str]:
        del row_of[:], words_of[:]
        for at, example in rows:
            if (count := len(words(text := str(example.input)))) >= LONG_RUN:
                row_of.append(at)
                words_of.append(count)
                yield text

    def others() -> Iterator[str]:
        del held_of[:]
        for at, example in enumerate(held):
            if len(words(text := str(example.input))) >= LONG_RUN:
                held_of.append(at)
                yield text

    if next(others(), None) is None or next(texts(), None) is None:
        return
    leaks = [leak for leak in find_leaks(Again(texts), Again(others), memory)
             if leak.reason != "leak-near" or words_of[leak.item] >= LONG_NEAR]
    wanted = {held_of[leak.held] for leak in leaks}
    found = {at: example for at, example in enumerate(held) if at in wanted} if wanted else {}
    for leak in leaks:
        yield row_of[leak.item], found[held_of[leak.held]], leak.share, leak.reason
