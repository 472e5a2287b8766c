"""From rendered examples to what goes through the model: updates, and the passes an update is made of.

An update holds `batch_size` examples. Its passes hold at most `pass_tokens` tokens each, which bounds memory; because
the loss is divided by the supervised tokens of the whole update, the number of passes changes nothing but memory
(contract point 6). Order is a pure function of (seed, epoch), so a resumed run knows what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from luthier.train.render import Rendered

Layout = Literal["packed", "buckets", "none"]
Indices = tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """One forward and backward pass."""

    input_ids: torch.Tensor
    """(rows, tokens). An example's last token is only a target, so it is not fed."""
    position_ids: torch.Tensor
    """(rows, tokens), from 0 in every example."""
    lengths: tuple[int, ...] | None
    """Fed tokens of the examples in the one packed row; None: one example per row, padded on the right. Real tokens
    never see the pads, because attention is causal: no mask is needed."""
    positions: torch.Tensor
    """Indices into the flattened (rows · tokens) of the tokens that predict a supervised token."""
    targets: torch.Tensor
    weights: torch.Tensor
    """float32, the example's weight at each supervised token."""
    num_tokens: int
    """Real tokens of the examples."""
    taught: torch.Tensor
    """Indices into `positions` of the tokens that are also learned from an earlier model's answers."""

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.input_ids.to(device), self.position_ids.to(device), self.lengths, self.positions.to(device),
                     self.targets.to(device), self.weights.to(device), self.num_tokens, self.taught.to(device))


def collate(examples: Sequence[Rendered], layout: Layout, pad_id: int = 0) -> Batch:
    """Examples as one batch: `packed` in one row, otherwise one row each (equal to the longest)."""
    fed = [len(example.ids) - 1 for example in examples]
    width = sum(fed) if layout == "packed" else max(fed)
    rows = 1 if layout == "packed" else len(examples)
    ids = np.full((rows, width), pad_id, dtype=np.int64)
    places = np.zeros((rows, width), dtype=np.int64)
    positions, targets, weights, taught = [], [], [], []
    at = 0
    for row, (example, length) in enumerate(zip(examples, fed)):
        line, start = (0, at) if layout == "packed" else (row, 0)
        tokens = np.asarray(example.ids, dtype=np.int64)
        ids[line, start:start + length] = tokens[:-1]
        places[line, start:start + length] = np.arange(length)
        if layout != "packed":
            places[line, length:] = np.arange(length, width)  # pads count on: a learned position table has no -1
        supervised = np.flatnonzero(np.asarray(example.loss[1:]))
        positions.append(line * width + start + supervised)
        targets.append(tokens[1:][supervised])
        weights.append(np.full(len(supervised), example.weight, dtype=np.float32))
        taught.append(np.full(len(supervised), example.taught))
        at += length
    return Batch(
        input_ids=torch.from_numpy(ids), position_ids=torch.from_numpy(places),
        lengths=tuple(fed) if layout == "packed" else None,
        positions=torch.from_numpy(np.concatenate(positions)), targets=torch.from_numpy(np.concatenate(targets)),
        weights=torch.from_numpy(np.concatenate(weights)), num_tokens=sum(len(example.ids) for example in examples),
        taught=torch.from_numpy(np.flatnonzero(np.concatenate(taught))),
    )


def split_passes(indices: Sequence[int], lengths: Sequence[int], layout: Layout, pass_tokens: int) -> list[Indices]:
    """An update's examples as passes of at most `pass_tokens` tokens (pads count; a longer example goes alone)."""
    if layout == "none":
        return [(index,) for index in indices]
    passes: list[list[int]] = []
    size = 0
    for index in sorted(indices, key=lambda index: (lengths[index], index)):
        grown = size + lengths[index] if layout == "packed" else lengths[index] * (len(passes[-1]) + 1 if passes else 1)
        if not passes or grown > pass_tokens:
            passes.append([index])
            size = lengths[index]
        else:
            passes[-1].append(index)
            size = grown
    return [tuple(group) for group in passes]


@dataclass
class TextFeed:
    """Rendered conversations and texts as passes of at most `pass_tokens` tokens."""

    layout: Layout
    pass_tokens: int

    def passes(self, examples: Sequence[Rendered], *, step: int | None = None) -> list[Batch]:
        lengths = [len(example.ids) for example in examples]
        return [collate([examples[index] for index in group], self.layout)
                for group in split_passes(range(len(examples)), lengths, self.layout, self.pass_tokens)]


@dataclass(frozen=True)
class Order:
    """Which examples form which update, for every epoch."""

    lengths: tuple[int, ...]
    """Tokens per example: the train examples first, then the pools that are replayed, one after the other."""
    pools: tuple[int, ...]
    """Examples in each pool."""
    replayed: tuple[int, ...]
    """Examples of each pool in an epoch; they walk through it, epoch by epoch."""
    batch_size: int
    seed: int
    layout: Layout

    @property
    def num_own(self) -> int:
        return len(self.lengths) - sum(self.pools)

    @property
    def updates_per_epoch(self) -> int:
        return -(-(self.num_own + sum(self.replayed)) // self.batch_size)

    def epoch(self, epoch: int) -> list[Indices]:
        """The updates of an epoch (0-based), in order."""
        parts = [np.arange(self.num_own)]
        first = self.num_own
        for number, (size, count) in enumerate(zip(self.pools, self.replayed, strict=True)):
            pool = np.random.default_rng([self.seed, 1, number]).permutation(size)
            walk = (np.arange(count) + epoch * count) % size
            parts.append(first + pool[walk])
            first += size
        rng = np.random.default_rng([self.seed, 0, epoch])
        order = rng.permutation(np.concatenate(parts))
        if self.layout == "buckets":  # similar lengths in one update, but which update comes when stays random
            wide = self.batch_size * 16
            lengths = np.asarray(self.lengths)
            order = np.concatenate([part[np.argsort(lengths[part], kind="stable")]
                                    for part in np.split(order, range(wide, len(order), wide))])
        updates = [tuple(int(index) for index in order[start:start + self.batch_size])
                   for start in range(0, len(order), self.batch_size)]
        if self.layout == "buckets":
            updates = [updates[index] for index in rng.permutation(len(updates))]
        return updates
