"""Which of many texts nearly repeat each other, in bounded memory.

MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3) proposes pairs: 108 minima (the
least and the greatest of 54 orders) in 36 bands of three, so that a pair with half of its runs in common is proposed
with a chance of .992, one with .6 of .9998. Each proposed pair is then compared by its sets of runs. Bands are sorted
one after the other, not kept in a table, so what lies on disk may be many times larger than the memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from luthier.prepare.shingle import BATCH_TEXTS, batches, distinct, runs_of

BANDS, ROWS = 36, 3
LEAST = 0.5
"""Below this similarity the bands would miss pairs."""
REACH = 48
"""In a bucket of more texts each is compared with the first one and this many before it."""

_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SLICE = 1 << 15  # pairs compared at a time


class Pair(NamedTuple):
    """Two texts, by number, and the Jaccard similarity of their runs."""

    one: int
    other: int
    share: float


class Sketches:
    """What is remembered of each text: 36 numbers, its runs, its figures. In memory up to a bound, else on disk."""

    def __init__(self, *, memory_mb: float = 512, folder: Path | None = None):
        """`memory_mb` bounds what is held of the texts and for sorting; above it, files in `folder` (default: the
        system's temporary folder) hold the sketches, about 340 bytes for a text of 50 words."""
        self._bound = int(memory_mb * 2**20)
        self._folder = folder
        self._disk: tempfile.TemporaryDirectory[str] | None = None
        self._bands: list[np.ndarray] = []
        self._runs: list[np.ndarray] = []
        self._written: list[tuple[int, int]] = []  # of each batch of bands on disk: where it begins, how many texts
        self._files: dict[str, BinaryIO] = {}
        self._sizes: list[np.ndarray] = []
        self._figures: list[np.ndarray] = []
        self._held = 0
        self._flat: np.ndarray | list[np.ndarray] = []
        self.count = 0

    def __enter__(self) -> Sketches:
        return self

    def __exit__(self, *_: object) -> None:
        self._bands, self._runs, self._flat = [], [], []
        for file in self._files.values():
            file.close()
        if self._disk is not None:
            self._disk.cleanup()

    @property
    def spilled(self) -> bool:
        """Whether the bound was passed and the sketches lie on disk."""
        return self._disk is not None

    def add(self, texts: Iterable[str]) -> None:
        """Take texts in; they are numbered in the order in which they come."""
        for batch in batches(texts, most=BATCH_TEXTS if self._bound > 1 << 24 else 512):
            found = runs_of(batch)
            self._sizes.append(np.diff(found.offsets).astype(np.int32))
            self._figures.append(found.figures)
            bands = _bands(found.flat, found.offsets)
            if self._disk is None:
                self._bands.append(bands)
                self._runs.append(found.flat)
                self._held += bands.nbytes + found.flat.nbytes
            else:
                self._write(bands, found.flat)
            self.count += len(batch)
            if self._disk is None and self._held > self._bound // 2:
                self._spill()

    def _write(self, bands: np.ndarray, runs: np.ndarray) -> None:
        self._written.append((self._files["bands"].tell(), bands.shape[1]))
        self._files["bands"].write(np.ascontiguousarray(bands).data)
        self._files["runs"].write(runs.data)

    def _spill(self) -> None:
        self._disk = tempfile.TemporaryDirectory(prefix="luthier-duplicates-", dir=self._folder)
        self._files = {name: (Path(self._disk.name) / name).open("w+b") for name in ("bands", "runs")}
        for bands, runs in zip(self._bands, self._runs):
            self._write(bands, runs)
        self._bands, self._runs = [], []

    def pairs(self, threshold: float, *, same_figures: bool = False, across: int | None = None) -> list[Pair]:
        """Pairs of at least `threshold` (Jaccard of the runs) in order of their numbers.

        `same_figures`: only pairs whose words with a digit are the same. `across`: only pairs of one text below this
        number and one from it on. ValueError for a threshold under 0.5.
        """
        if threshold < LEAST:
            raise ValueError(f"near-duplicates are searched from {LEAST} on, not {threshold}")
        if not self.count:
            return []
        sizes = np.concatenate(self._sizes)
        figures = np.concatenate(self._figures) if same_figures else None
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        seen = np.zeros(0, np.uint64)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for codes in self._proposed(sizes, figures, across):
            new = codes[~_inside(codes, seen)]
            seen = distinct(np.concatenate((seen, new))) if seen.nbytes < self._bound // 4 else distinct(new)
            for at in range(0, len(new), _SLICE):
                part = new[at : at + _SLICE]
                share = self._shares(part, sizes, starts, threshold)
                near = share >= threshold
                found.append((part[near], share[near]))
        codes = np.concatenate([codes for codes, _ in found]) if found else np.zeros(0, np.uint64)
        share = np.concatenate([share for _, share in found]) if found else np.zeros(0)
        codes, first = np.unique(codes, return_index=True)
        return [Pair(one, other, value) for one, other, value in zip(
            (codes >> _SHIFT).tolist(), (codes & _LOW).tolist(), share[first].tolist())]

    def _proposed(self, sizes: np.ndarray, figures: np.ndarray | None, across: int | None) -> Iterator[np.ndarray]:
        """Codes (one << 32 | other) of pairs that share a bucket, band by band, each code once a band."""
        has_words = sizes > 0
        passes = max(1, -(-self.count * 48 // self._bound))  # 48 bytes a text while a band is sorted
        for band in range(BANDS):
            for turn in range(passes):
                yield from self._in_buckets(self._column(band, turn, passes, has_words, figures), across)

    def _column(self, band: int, turn: int, passes: int, has_words: np.ndarray, figures: np.ndarray | None
                ) -> np.ndarray:
        """Sorted (key << 32 | text) of one band; in several passes, of the keys whose turn it is."""
        parts = []
        at = 0
        for keys in self._keys(band):
            count = len(keys)
            inside = has_words[at : at + count]
            if figures is not None:
                mark = figures[at : at + count]
                keys = keys ^ (mark >> _SHIFT).astype(np.uint32) ^ mark.astype(np.uint32)
            if passes > 1:
                inside = inside & (keys % np.uint32(passes) == turn)
            number = np.flatnonzero(inside)
            parts.append((keys[number].astype(np.uint64) << _SHIFT) | (number + at).astype(np.uint64))
            at += count
        column = np.concatenate(parts)
        column.sort()
        return column

    def _keys(self, band: int) -> Iterator[np.ndarray]:
        """One band of each batch. Read, not mapped: pages of a mapped file count as the memory of the process."""
        yield from (bands[band] for bands in self._bands)
        for begin, count in self._written:
            self._files["bands"].seek(begin + 4 * band * count)
            yield np.frombuffer(self._files["bands"].read(4 * count), np.uint32)

    def _in_buckets(self, column: np.ndarray, across: int | None) -> Iterator[np.ndarray]:
        key, text = column >> _SHIFT, column & _LOW
        same = key[1:] == key[:-1]
        if not same.any():
            return
        grouped = np.concatenate(([False], same)) | np.concatenate((same, [False]))
        key, text = key[grouped], text[grouped]
        begins = np.concatenate(([True], key[1:] != key[:-1]))
        first = np.flatnonzero(begins)[np.cumsum(begins) - 1]  # place of the bucket's first text
        place = np.arange(len(key))
        if across is None:
            for step in range(1, REACH + 1):
                later = place[place - step >= first]
                if not len(later):
                    return
                yield distinct((text[later - step] << _SHIFT) | text[later])
            later = place[place - REACH > first]
            yield distinct((text[first[later]] << _SHIFT) | text[later])
            return
        # A bucket's texts are in order of their numbers: first those below `across`, then the others.
        below = text < across
        low = np.add.reduceat(below.astype(np.int64), np.flatnonzero(begins))[np.cumsum(begins) - 1]
        high = place[~below & (low > 0)]
        for step in range(int(min(low.max(initial=0), 4 * REACH))):
            high = high[low[high] > step]
            if not len(high):
                return
            yield distinct((text[first[high] + step] << _SHIFT) | text[high])

    def _shares(self, codes: np.ndarray, sizes: np.ndarray, starts: np.ndarray, threshold: float) -> np.ndarray:
        """Jaccard similarity of each pair; 0 where the sizes alone rule the threshold out."""
        one, other = (codes >> _SHIFT).astype(np.int64), (codes & _LOW).astype(np.int64)
        small, large = np.minimum(sizes[one], sizes[other]), np.maximum(sizes[one], sizes[other])
        likely = np.flatnonzero(small >= threshold * large)
        share = np.zeros(len(codes))
        if not len(likely):
            return share
        one, other = one[likely], other[likely]
        pair = np.concatenate((np.arange(len(one)), np.arange(len(one))))
        which = np.concatenate((one, other))
        length = sizes[which]
        taken = self._take(which, starts, length).astype(np.uint64)
        runs = (np.repeat(pair, length).astype(np.uint64) << _SHIFT) | taken
        runs.sort()
        twice = (runs[1:][runs[1:] == runs[:-1]] >> _SHIFT).astype(np.int64)
        shared = np.bincount(twice, minlength=len(one))
        share[likely] = shared / (sizes[one] + sizes[other] - shared)
        return share

    def _take(self, texts: np.ndarray, starts: np.ndarray, length: np.ndarray) -> np.ndarray:
        """The runs of these texts, one text after the other."""
        if self._disk is not None:
            file, found = self._files["runs"], {}
            for text in np.unique(texts).tolist():  # sorted: the file is read forwards
                file.seek(4 * int(starts[text]))
                found[text] = np.frombuffer(file.read(4 * int(starts[text + 1] - starts[text])), np.uint32)
            return np.concatenate([found[text] for text in texts.tolist()])
        if isinstance(self._flat, list):
            self._runs = [np.concatenate(self._runs)] if self._runs else [np.zeros(0, np.uint32)]
            self._flat = self._runs[0]
        offset = np.repeat(np.cumsum(length) - length, length)
        return self._flat[np.repeat(starts[texts], length) + np.arange(int(length.sum())) - offset]


def _inside(codes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which codes are among the sorted `seen`."""
    if not len(seen):
        return np.zeros(len(codes), bool)
    at = np.minimum(np.searchsorted(seen, codes), len(seen) - 1)
    return seen[at] == codes


def _bands(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """uint32 [bands, texts]: the hash of three minima of the text's runs under three orders of all runs."""
    sizes = np.diff(offsets)
    filled = np.flatnonzero(sizes > 0)
    bands = np.zeros((BANDS, len(sizes)), np.uint32)
    if not len(filled):
        return bands
    random = np.random.default_rng(42)
    orders = -(-BANDS * ROWS // 2)
    factors = random.integers(0, 1 << 32, orders, dtype=np.uint32) | np.uint32(1)
    masks = random.integers(0, 1 << 32, orders, dtype=np.uint32)
    begins = offsets[filled]
    order = np.empty_like(flat)
    for band in range(BANDS):
        key = np.zeros(len(filled), np.uint64)
        for row in range(band * ROWS, band * ROWS + ROWS):
            if row % 2 == 0:  # an odd factor modulo 2^32 and a mask turn the 32-bit hashes around, one to one
                np.multiply(flat, factors[row // 2], out=order)
                np.bitwise_xor(order, masks[row // 2], out=order)
            least = np.minimum if row % 2 == 0 else np.maximum  # the greatest is the least of the order turned round
            key = (key ^ least.reduceat(order, begins)) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> _SHIFT
        bands[band, filled] = key.astype(np.uint32)
    return bands
