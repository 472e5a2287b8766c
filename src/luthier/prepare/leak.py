"""The leak check: nothing that is trained on may repeat what the result is measured on.

A text leaks when half of its 13-word runs (of the shorter text's, at least four) stand in one held-out text, or when
its 3-word shingles overlap a held-out text's by Jaccard 0.8. Thirteen words follow GPT-3's decontamination (Brown et
al. 2020, appendix C), which drops at the first shared run; a share spares texts that only quote the same boilerplate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from luthier.index.rag import bare_question
from luthier.prepare.shingle import batches, long_runs
from luthier.shelf import Memory
from luthier.types import Example

RUN = 13
SHARE = 0.5
LEAST = 4
_PAIRS = 1 << 20
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


def find_leaks(texts: Iterable[str], held: Iterable[str], memory: Memory | None = None) -> list[Leak]:
    """The worst leak of each of `texts` that has one, by item number.

    Both are gone through more than once and may lie on disk; what is kept of them meanwhile is bounded by `memory`.
    """
    from luthier.prepare.dedupe import near_between

    memory = memory or Memory()
    found: dict[int, Leak] = {}
    for block in _blocks(held, int(memory.mb * 2**20)):
        _same_runs(texts, block, found)
    for at, other, share in near_between(texts, held, NEAR, memory_mb=memory.mb, folder=memory.folder):
        if at not in found:
            found[at] = Leak(at, other, share, "leak-near")
    return [found[at] for at in sorted(found)]


@dataclass(frozen=True)
class _Block:
    """The runs of some held-out texts, sorted."""

    runs: np.ndarray
    """uint64."""
    text: np.ndarray
    """uint32: which of the block's texts holds each."""
    first: int
    """Number of the block's first text."""
    sizes: np.ndarray
    """By text: how many runs it has."""


def _blocks(held: Iterable[str], bound: int) -> Iterator[_Block]:
    """The held-out texts in blocks whose runs take at most about `bound` bytes while they are sorted."""
    runs: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    first = count = bytes = 0
    for batch in batches(held):
        found, offsets = long_runs(batch, RUN)
        runs.append(found)
        sizes.append(np.diff(offsets))
        count, bytes = count + len(batch), bytes + 32 * len(found)
        if bytes > bound:
            yield _block(runs, sizes, first)
            runs, sizes, first, bytes = [], [], count, 0
    if bytes:
        yield _block(runs, sizes, first)


def _block(runs: list[np.ndarray], sizes: list[np.ndarray], first: int) -> _Block:
    flat, size = np.concatenate(runs), np.concatenate(sizes)
    order = np.argsort(flat, kind="stable")
    text = np.repeat(np.arange(len(size), dtype=np.uint32), size)
    return _Block(flat[order], text[order], first, size)


def _same_runs(texts: Iterable[str], block: _Block, found: dict[int, Leak]) -> None:
    at = 0
    for batch in batches(texts):
        runs, offsets = long_runs(batch, RUN)
        place = np.searchsorted(block.runs, runs)
        hit = block.runs[np.minimum(place, len(block.runs) - 1)] == runs
        hits = np.concatenate(([0], np.cumsum(hit)))
        number = hits[offsets[1:]] - hits[offsets[:-1]]
        likely = np.flatnonzero(hit & np.repeat(number >= LEAST, np.diff(offsets)))
        low = place[likely]
        count = np.searchsorted(block.runs, runs[likely], "right") - low
        text = np.searchsorted(offsets, likely, "right") - 1
        sums = np.cumsum(count)
        begin = 0
        while begin < len(likely):  # texts with runs that stand in very many held-out ones are taken in parts
            end = int(np.searchsorted(sums, (sums[begin - 1] if begin else 0) + _PAIRS, "right"))
            end = max(int(np.searchsorted(text, text[min(end, len(text) - 1)], "left")) if end < len(text) else end,
                      int(np.searchsorted(text, text[begin], "right")))
            part = slice(begin, end)
            for item, other, share in _shares(text[part], low[part], count[part], block, np.diff(offsets)):
                if at + item not in found or share > found[at + item].share:
                    found[at + item] = Leak(at + item, block.first + other, share, "leak-runs")
            begin = end
        at += len(batch)


def _shares(text: np.ndarray, low: np.ndarray, count: np.ndarray, block: _Block, sizes: np.ndarray
            ) -> Iterator[tuple[int, int, float]]:
    """(text, held-out text, share of the runs) of the pairs that share enough, in order."""
    where = np.repeat(low - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))
    codes = np.sort((np.repeat(text, count).astype(np.uint64) << np.uint64(32)) | block.text[where])
    first = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    times = np.diff(np.append(first, len(codes)))
    first, times = first[times >= LEAST], times[times >= LEAST]
    pairs = codes[first]
    one, other = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    share = times / np.minimum(sizes[one], block.sizes[other])
    yield from zip(*(values[share >= SHARE].tolist() for values in (one, other, share)))


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

