"""Exact and near-duplicate passages: one of each is kept, the others are listed with the one they repeat.

`luthier.prepare.minhash` finds passages that share half of their 3-word shingles. Of templates filled in for two
products, two states or two illnesses that is true as well, so a pair is merged only when few words differ and no
name, number or negation is among them.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import Field

from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.text import letters, normalise, words
from luthier.shelf import view
from luthier.spec import Spec
from luthier.types import Dropped, Passage

_CAPITAL = re.compile(r"[^\W\d_a-z]\w*")
_ENDS = frozenset(".!?:…。！？")
"""After these a capital begins a sentence."""
_BULLETS = frozenset("•◦▪‣*+-–—#>|")
NEGATIONS = frozenset("""no not nor never none neither cannot without unless except nicht kein keine keinen keiner
    keinem keines nie niemals ohne außer ni jamais sans aucun aucune nunca sin non mai senza niet geen nooit""".split())


class Dedupe(Spec):
    """Removal of repeated passages. The first in order of path and position is kept."""

    exact: bool = True
    """Drop passages whose words equal those of an earlier one (case, spacing and punctuation aside)."""
    near: float | None = Field(default=0.5, ge=0.5, le=1)
    """Drop passages whose 3-word shingles overlap this much (Jaccard) with an earlier one, where `changed` allows it;
    null switches it off. A copy with a tenth of its words replaced here and there still overlaps by a half."""
    changed: float = Field(default=0.1, ge=0, lt=1)
    """The largest share of its words that a near-duplicate may have changed, added or left out."""
    keep_other_figures: bool = True
    """Keep a near-duplicate that carries other numbers or codes: the data sheets of two products differ in nothing
    else, and the numbers are what people ask for."""
    keep_other_names: bool = True
    """Keep a near-duplicate in which another name stands (a capital inside a sentence, a word of its title or
    headings, one word put for another twice), or that has a `not` more or less: it says something else."""
    memory_mb: float = Field(default=512, ge=16)
    """What the search for near-duplicates may hold in memory (MiB); what is more lies in a temporary folder."""

    def apply(self, items: Iterable[Passage], ctx: StepContext) -> Iterator[Kept[Passage] | Dropped]:
        """Yield the passages in their order; a drop's `detail` names the passage it repeats."""
        passages = items if isinstance(items, Sequence) else [*items]
        first: dict[int, int] = {}  # hash of a text → the first passage that has it
        others: dict[int, list[int]] = {}  # and those whose text is another one, all the same
        unique = array("q")
        for number in in_order(passages):
            if self.exact:
                passage = passages[number]
                key = hash(letters(passage.text))
                alike = (first[key], *others.get(key, ())) if key in first else ()
                said = normalise(passage.text) if alike else ""
                same = next((one for at in alike if normalise((one := passages[at]).text) == said), None)
                if same is not None:
                    yield _dropped(passage, "exact-duplicate", same)
                    continue
                if alike:
                    others.setdefault(key, []).append(number)
                else:
                    first[key] = number
            unique.append(number)
        del first, others
        kept = view(passages, unique)
        repeats = self._near(kept, ctx)
        for at, passage in enumerate(kept):
            if at in repeats:
                yield _dropped(passage, "near-duplicate", kept[repeats[at]])
            else:
                yield Kept(passage)

    def _near(self, unique: Sequence[Passage], ctx: StepContext) -> dict[int, int]:
        """Number of each passage that goes → number of the one that it repeats."""
        repeats: dict[int, int] = {}
        if self.near is None or len(unique) < 2:
            return repeats
        pairs = near_pairs((passage.text for passage in unique), self.near, same_figures=self.keep_other_figures,
                           memory_mb=self.memory_mb, folder=ctx.memory.folder)
        for one, other in pairs:
            if one in repeats or other in repeats:  # `one` went already: its repeats are judged against the kept
                continue
            if self.says_the_same(unique[one], unique[other]):
                repeats[other] = one
        return repeats

    def says_the_same(self, one: Passage, other: Passage) -> bool:
        """Whether what two passages with like shingles differ in is few words, and no name or negation."""
        said, told = words(one.text), words(other.text)
        most = self.changed * max(len(said), len(told))
        apart = [(a, b) for a, b in zip(said, told) if a != b] if len(said) == len(told) else []
        aligned = len(said) == len(told) and len(apart) <= most  # words put for words: the others cancel out
        lost, new = _difference([a for a, _ in apart], [b for _, b in apart]) if aligned else _difference(said, told)
        if max(sum(lost.values()), sum(new.values())) > most:
            return False
        if not self.keep_other_names:
            return True
        if not NEGATIONS.isdisjoint(lost) or not NEGATIONS.isdisjoint(new):
            return False
        if max(lost.values(), default=0) > 1 and max(new.values(), default=0) > 1:
            return False
        # A name put for a name, or put in where nothing else changed, tells of something else.
        plain = (lost and _names(one).isdisjoint(lost)) or (new and _names(other).isdisjoint(new))
        if (lost or new) and not plain:
            return False
        if aligned and len(apart) == sum(lost.values()):
            return True
        # So do the same names in another order: "the lessee pays the lessor".
        mine, yours = Counter(said), Counter(told)
        steady = {name for name in _names(one) & _names(other) if mine[name] == yours[name]}
        return [word for word in said if word in steady] == [word for word in told if word in steady]


def _difference(some: Sequence[str], others: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """(how often each word stands in the first more often than in the second, the other way round)."""
    mine, yours = Counter(some), Counter(others)
    # As `mine - yours` of counters, in a tenth of the time.
    return ({word: count - yours[word] for word, count in mine.items() if count > yours.get(word, 0)},
            {word: count - mine[word] for word, count in yours.items() if count > mine.get(word, 0)})


def figures_of(text: str) -> frozenset[str]:
    """The words that hold a digit."""
    return frozenset(word for word in words(text) if any(sign.isdigit() for sign in word))


def _names(passage: Passage) -> set[str]:
    """Words that name what a passage is about: with a capital inside a sentence, or in its title or headings."""
    text = passage.text
    found = {match[0].casefold() for match in _CAPITAL.finditer(text)
             if match[0][0].isupper() and _inside(text, match.start())}
    for head in (passage.title, *passage.heading):
        found.update(words(head))
    return found


def _inside(text: str, at: int) -> bool:
    """Whether the word at this place stands inside a sentence: before it no end of a sentence, no bullet, no line."""
    before = text[max(0, at - 4) : at]
    word = before.rstrip()
    if not word:
        return False
    if len(word) == len(before):  # joined to what is before it, as in (Texas or non-Hodgkin
        return word[-1] in "-/(“„"
    return word[-1] not in _ENDS and not (word[-1] in _BULLETS and (len(word) == 1 or word[-2].isspace()))


def in_order(passages: Iterable[Passage]) -> list[int]:
    """Numbers of the passages by path, place and id."""
    keys = [(sys.intern(passage.path), passage.spans, passage.id) for passage in passages]
    return sorted(range(len(keys)), key=keys.__getitem__)


def near_pairs(texts: Iterable[str], threshold: float, *, same_figures: bool = False, memory_mb: float = 512,
               folder: Path | None = None) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose 3-word shingles have a Jaccard similarity of at least `threshold`, in order.

    `same_figures`: only pairs whose words with a digit are the same. The texts may stream; what is held of them is
    bounded by `memory_mb` (MiB), and more lies on disk meanwhile, in `folder` or the system's temporary one. Measured
    on planted copies (docs/clean.md). A threshold under 0.5 would miss pairs and raises ValueError.
    """
    from luthier.prepare.minhash import Sketches

    with Sketches(memory_mb=memory_mb, folder=folder) as sketches:
        sketches.add(texts)
        return [(pair.one, pair.other) for pair in sketches.pairs(threshold, same_figures=same_figures)]


def near_between(texts: Iterable[str], others: Iterable[str], threshold: float, *, memory_mb: float = 512,
                 folder: Path | None = None) -> list[tuple[int, int, float]]:
    """(i, j, Jaccard) of each text i with its nearest of `others`, where that is at least `threshold`."""
    from luthier.prepare.minhash import Sketches

    best: dict[int, tuple[float, int]] = {}
    with Sketches(memory_mb=memory_mb, folder=folder) as sketches:
        sketches.add(others)
        below = sketches.count
        sketches.add(texts)
        for other, at, share in sketches.pairs(threshold, across=below):
            if at not in best or (share, -other) > (best[at][0], -best[at][1]):
                best[at] = (share, other)
    return [(at - below, other, share) for at, (share, other) in sorted(best.items())]


def _dropped(passage: Passage, reason: str, kept: Passage) -> Dropped:
    return Dropped(item=passage.id, step="dedupe", reason=reason, detail=f"{passage.citation} repeats {kept.id} "
                   f"({kept.citation})", text=passage.text[:300])
