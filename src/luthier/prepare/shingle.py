"""Many texts to sets of hashed word runs at once, in numpy: what the search for near-duplicates compares.

The words are those of `luthier.prepare.text.words`. Each word gets a polynomial hash from prefix sums over the bytes
of all texts, so Python never loops over words. A run ("shingle") of three words is kept as 32 bits: for two texts of
60 words the chance that one shared run is an accident is about one in a million.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from luthier.prepare.text import normalise

RUN = 3
"""Words in a run."""
BATCH_TEXTS = 4096
BATCH_CHARACTERS = 1 << 18

_BASE = 0x9E3779B97F4A7C15 | 5  # odd, and 5 modulo 8: powers differ in nearly all bits
_FACTORS = np.array([0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB], np.uint64)
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")


@dataclass(frozen=True)
class Runs:
    """The distinct runs of each text of a batch."""

    flat: np.ndarray
    """uint32, sorted within each text."""
    offsets: np.ndarray
    """int64 [texts + 1]: text i owns `flat[offsets[i]:offsets[i + 1]]`."""
    figures: np.ndarray
    """uint64 [texts]: equal for texts with the same set of words that hold a digit."""


def batches(texts: Iterable[str], *, most: int = BATCH_TEXTS) -> Iterator[list[str]]:
    """The texts in order, in lists of bounded size; a text longer than the bound is a list of its own."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) >= most or size + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Words:
    """The words of a batch of texts, one after the other."""

    hash: np.ndarray
    """uint64: equal for equal words."""
    begin: np.ndarray
    end: np.ndarray
    """Their places among the bytes of the batch."""
    data: np.ndarray
    """uint8: the bytes."""
    of_text: np.ndarray
    """Number of each word's text."""
    first: np.ndarray
    last: np.ndarray
    """By text: its first word and one past its last."""


def runs_of(texts: Sequence[str]) -> Runs:
    """The runs of up to 65,535 texts. A text of one or two words is one run; one without words has none."""
    found = _words(texts)
    count, word, of_text = len(texts), found.hash, found.of_text
    after = found.last[of_text]  # one past the last word of the word's text
    at = np.arange(len(word))
    starts = (at + RUN <= after) | ((at == found.first[of_text]) & (after - at < RUN))
    at, after, text = at[starts], after[starts], of_text[starts]
    padded = np.append(word, np.zeros(RUN - 1, np.uint64))
    mixed = word[at] * _FACTORS[0]
    for step in range(1, RUN):
        mixed += np.where(at + step < after, padded[at + step], np.uint64(step)) * _FACTORS[step]
    mixed = _scramble(mixed)
    keys = distinct((text.astype(np.uint64) << np.uint64(32)) | (mixed >> np.uint64(32)))
    offsets = np.searchsorted(keys, np.arange(count + 1, dtype=np.uint64) << np.uint64(32))
    return Runs(keys.astype(np.uint32), offsets.astype(np.int64), _figures(found, count))


def long_runs(texts: Sequence[str], run: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes of the distinct runs of `run` words, sorted within each text; int64 offsets [texts + 1]).

    A text of fewer words has none. 64 bits, for these are looked up among those of all texts.
    """
    found = _words(texts)
    at = np.arange(len(found.hash))
    at = at[at + run <= found.last[found.of_text]] if len(at) else at
    mixed = np.zeros(len(at), np.uint64)
    for step in range(run):  # after each word the sum is scrambled, so the order of the words counts
        mixed = _scramble(mixed + found.hash[at + step])
    text = found.of_text[at]
    order = np.lexsort((mixed, text))
    mixed, text = mixed[order], text[order]
    new = np.ones(len(mixed), bool)
    new[1:] = (mixed[1:] != mixed[:-1]) | (text[1:] != text[:-1])
    return mixed[new], np.searchsorted(text[new], np.arange(len(texts) + 1)).astype(np.int64)


def _words(texts: Sequence[str]) -> _Words:
    parts = [_comparable(text) for text in texts]
    ends = np.cumsum([len(part) + 1 for part in parts], dtype=np.int64) if parts else np.zeros(0, np.int64)
    data = np.frombuffer(b"\n".join(parts) + b"\n", dtype=np.uint8)
    value = _values()[data]
    is_word = value != 0
    edge = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1  # begin, end, begin, …: the last byte is a line end
    if len(data) and is_word[0]:
        edge = np.concatenate(([0], edge))
    begin, end = edge[::2], edge[1::2]
    first = np.searchsorted(begin, np.concatenate(([0], ends[:-1]))) if parts else np.zeros(0, np.int64)
    last = np.append(first[1:], len(begin)) if parts else first
    return _Words(_word_hashes(value, begin, end), begin, end, data, np.repeat(np.arange(len(parts)), last - first),
                  first, last)


def distinct(values: np.ndarray) -> np.ndarray:
    """The different values, sorted; `np.unique` goes through a hash table and takes ten times as long."""
    ordered = np.sort(values)
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def _comparable(text: str) -> bytes:
    """Bytes whose words are the text's: the tables below fold the case of ASCII; other text is folded here."""
    if text.isascii():
        return text.encode("ascii")
    folded = normalise(text)
    if _FOREIGN_DIGIT.search(folded):
        folded = _FOREIGN_DIGIT.sub(lambda match: str(int(match[0])), folded)
    return folded.encode("utf-8", "surrogatepass")


@cache
def _values() -> np.ndarray:
    """By byte: a random number, upper and lower case alike; 0 for what is no part of a word."""
    value = np.random.default_rng(20260).integers(1, 1 << 63, 256, dtype=np.uint64)
    value[65:91] = value[97:123]
    for low, high in ((0, 48), (58, 65), (91, 95), (96, 97), (123, 128)):
        value[low:high] = 0
    return value


@cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    forth, back = np.full(size, _BASE, np.uint64), np.full(size, pow(_BASE, -1, 1 << 64), np.uint64)
    forth[0] = back[0] = 1
    return np.cumprod(forth), np.cumprod(back)


def _word_hashes(value: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The sum of value × base^place over a word's bytes, places counted from its begin, modulo 2^64."""
    size = 1 << max(10, len(value).bit_length())
    forth, back = _powers(size) if size <= 4 * BATCH_CHARACTERS else _powers.__wrapped__(size)
    sums = np.zeros(len(value) + 1, np.uint64)
    np.cumsum(value * forth[: len(value)], out=sums[1:])
    return _scramble((sums[end] - sums[begin]) * back[begin])


def _figures(found: _Words, count: int) -> np.ndarray:
    word, of_text = found.hash, found.of_text
    digits = np.flatnonzero((found.data >= 48) & (found.data < 58))
    marked = (np.searchsorted(digits, found.end) > np.searchsorted(digits, found.begin)
              if len(digits) else np.zeros(len(word), bool))
    order = np.lexsort((word[marked], of_text[marked]))
    text, value = of_text[marked][order], word[marked][order]
    new = np.ones(len(text), bool)
    new[1:] = (text[1:] != text[:-1]) | (value[1:] != value[:-1])
    sums = np.zeros(count, np.uint64)
    np.add.at(sums, text[new], _scramble(value[new]))
    return sums


def _scramble(value: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele et al. 2014): every bit of the result depends on every bit of the value."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
