"""From rows to the tensors of a pass, and the order in which rows are seen (labelled tasks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Processor, Row
from luthier.adapt.network import IGNORED
from luthier.task import Task
from luthier.types import Example


@dataclass(frozen=True)
class LabelBatch:
    """One forward and backward pass."""

    inputs: dict[str, Any]
    """What `Network.forward` takes; embed: `query` and `documents`, each of that kind, and `also_right`, bool [rows,
    documents]: documents that match as well, and count neither as right nor as wrong."""
    targets: torch.Tensor
    """int64 [rows] or float32 [rows, classes]; tag: int64 [tokens of all rows]; embed: int64 [rows], the place of the
    matching document."""
    weights: torch.Tensor
    """float32 [rows]; tag: [tokens], zero where a token carries no loss."""
    num_tokens: int
    """Real tokens (text), else rows."""
    lengths: None = None
    teacher: torch.Tensor | None = None
    """float32 [rows, classes]: logits of the teacher that the rows are distilled from."""
    told: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """By a regularizer's kind, float32 [rows, classes]: its teacher's logits, NaN where there are none."""
    parts: tuple[str, ...] = ()
    """Name of each row's classes (see `Row.part`); empty where all rows have all of them."""

    def to(self, device: torch.device | str) -> LabelBatch:
        return LabelBatch(_move(self.inputs, device), self.targets.to(device), self.weights.to(device), self.num_tokens,
                          teacher=None if self.teacher is None else self.teacher.to(device),
                          told=_move(dict(self.told), device), parts=self.parts)


def _move(inputs: Any, device: torch.device | str) -> Any:
    return {name: _move(value, device) for name, value in inputs.items()} if isinstance(inputs, dict) \
        else inputs.to(device)


@dataclass
class LabelFeed:
    """Rows as passes of at most `pass_tokens` tokens. Images and embeddings go in one pass: a batch norm and the other
    rows' documents belong to the update."""

    processor: Processor
    task: Task
    num_outputs: int
    pass_tokens: int
    seed: int = 0
    augments: Sequence[Any] = ()
    """Augmentations of single rows, in order."""
    mix: Any = None
    """A mix of rows within a pass, or None."""
    examples: Mapping[str, Example] = field(default_factory=dict)
    """Example by row id, for augmentations that change the text."""

    def passes(self, examples: Sequence[Row], *, step: int | None = None) -> list[LabelBatch]:
        rows = list(examples)
        if step is not None and self.augments:
            rows = [self._augmented(row, np.random.default_rng([self.seed, 2, step, at]))
                    for at, row in enumerate(rows)]
        if self.task.type == "embed":
            return [self._pairs(rows)]
        finished = isinstance(rows[0].data, np.ndarray)
        groups = [list(range(len(rows)))] if finished else self._groups(rows)
        found = [self._batch([rows[at] for at in group]) for group in groups]
        if step is not None and self.mix is not None:
            rng = np.random.default_rng([self.seed, 3, step])
            found = [self._mixed(batch, rng) for batch in found]
        return found

    def _groups(self, rows: Sequence[Row]) -> list[list[int]]:
        groups: list[list[int]] = []
        for at in sorted(range(len(rows)), key=lambda at: (rows[at].size, at)):
            if not groups or rows[at].size * (len(groups[-1]) + 1) > self.pass_tokens:
                groups.append([])
            groups[-1].append(at)
        return groups

    def _augmented(self, row: Row, rng: np.random.Generator) -> Row:
        if isinstance(row.data, np.ndarray):
            data = row.data
            for augment in self.augments:
                data = augment.apply(data, rng)
            return row.but(data=data)
        example = self.examples[row.id]
        text = example.input
        for augment in self.augments:
            text = augment.apply(text, rng)
        if text == example.input:
            return row
        ids = tuple(self.processor.encode([text])[0])  # type: ignore[attr-defined]
        return row.but(data=ids, size=len(ids))

    def _batch(self, rows: Sequence[Row]) -> LabelBatch:
        if isinstance(rows[0].data, np.ndarray) and rows[0].data.dtype == np.float32:
            inputs = {"features": torch.from_numpy(np.stack([row.data for row in rows]))}
        else:
            inputs = self.processor.batch(rows)
        weights = torch.tensor([row.weight for row in rows], dtype=torch.float32)
        tokens = sum(row.size for row in rows)
        if self.task.type == "tag":
            width = max(row.size for row in rows)
            codes = np.full((len(rows), width), IGNORED, dtype=np.int64)
            for at, row in enumerate(rows):
                codes[at, : row.size] = row.target
            targets = torch.from_numpy(codes).flatten()
            carried = (targets != IGNORED).float() * weights.repeat_interleave(width)
            return LabelBatch(inputs, targets.clamp_min(0), carried, tokens)
        teacher = None if any(row.teacher is None for row in rows) else torch.from_numpy(
            np.stack([row.teacher for row in rows]))
        parts = tuple(row.part for row in rows) if any(row.part for row in rows) else ()
        more: dict[str, Any] = {"teacher": teacher, "told": _told(rows, self.num_outputs), "parts": parts}
        if all(isinstance(row.target, int | np.integer) for row in rows):
            return LabelBatch(inputs, torch.tensor([int(row.target) for row in rows]), weights, tokens, **more)
        soft = np.stack([row.target if isinstance(row.target, np.ndarray) else _one_hot(row.target, self.num_outputs)
                         for row in rows])
        targets = torch.from_numpy(np.asarray(soft, dtype=np.float32))
        return LabelBatch(inputs, targets, weights, tokens, **more)

    def _pairs(self, rows: Sequence[Row]) -> LabelBatch:
        """Every row's matching text stands against those of all other rows (and against its own negatives)."""
        documents: list[Row] = []
        place: dict[tuple[int, ...], int] = {}
        targets = []
        for row in rows:  # the same text for two queries is one document, or it would be its own wrong answer
            for at, document in enumerate(row.target):
                if document.data not in place:
                    place[document.data] = len(documents)
                    documents.append(document)
                if at == 0:
                    targets.append(place[document.data])
        right: dict[tuple[int, ...], set[int]] = {}
        for row, target in zip(rows, targets):
            right.setdefault(row.data, set()).add(target)
        also = torch.zeros(len(rows), len(documents), dtype=torch.bool)
        for at, row in enumerate(rows):  # a query with several matching texts: none of them is a wrong answer
            also[at, [place for place in right[row.data] if place != targets[at]]] = True
        inputs = {"query": self.processor.batch(rows), "documents": self.processor.batch(documents),
                  "also_right": also}
        return LabelBatch(inputs, torch.tensor(targets), torch.tensor([row.weight for row in rows]),
                          sum(row.size for row in [*rows, *documents]))

    def _mixed(self, batch: LabelBatch, rng: np.random.Generator) -> LabelBatch:
        targets = batch.targets
        if targets.dtype == torch.int64:
            targets = torch.nn.functional.one_hot(targets, self.num_outputs).float()
        pixels, mixed = self.mix.mix(batch.inputs["pixels"], targets, rng)
        return LabelBatch({**batch.inputs, "pixels": pixels}, mixed, batch.weights, batch.num_tokens)


def _one_hot(place: Any, num: int) -> np.ndarray:
    found = np.zeros(num, dtype=np.float32)
    found[int(place)] = 1
    return found


def _told(rows: Sequence[Row], num_outputs: int) -> dict[str, torch.Tensor]:
    kinds = sorted({kind for row in rows for kind in row.told or ()})
    nothing = np.full(num_outputs, np.nan, dtype=np.float32)
    return {kind: torch.from_numpy(np.stack([(row.told or {}).get(kind, nothing) for row in rows])) for kind in kinds}


@dataclass(frozen=True)
class LabelOrder:
    """Which rows form which update, for every epoch."""

    sizes: tuple[int, ...]
    """Tokens of each row (1 where all are alike): the train rows first, then the pool that is replayed."""
    batch_size: int
    seed: int
    draw: tuple[float, ...] | None = None
    """Probability of each train row (sums to 1) where an epoch draws as many rows with replacement; None: each row
    once."""
    num_pool: int = 0
    """So many of the rows, the last ones, are the pool."""
    share: float = 0.0
    """Share of every update that comes from the pool."""

    @property
    def num_replayed(self) -> int:
        """Rows of every update that come from the pool: at least one where there is a share, never all of them."""
        if not (self.num_pool and self.share):
            return 0
        return min(max(1, round(self.batch_size * self.share)), max(self.batch_size - 1, 1))

    @property
    def num_own(self) -> int:
        return len(self.sizes) - self.num_pool

    @property
    def _own_size(self) -> int:
        return max(self.batch_size - self.num_replayed, 1)

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.num_own // self._own_size)

    def epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """The updates of an epoch (0-based), in order: rows of similar length in one update, updates shuffled; replayed
        rows are added to each, walking through the shuffled pool."""
        own = self._own(epoch)
        count = self.num_replayed
        if not count:
            return own
        walked = self._walk(epoch * len(own) * count, len(own) * count)
        return [(*update, *walked[at * count : (at + 1) * count]) for at, update in enumerate(own)]

    def _walk(self, first: int, num: int) -> list[int]:
        """`num` places of the pool from the `first`-th on, turn after turn through all of it in another order."""
        found: list[int] = []
        turn, at = divmod(first, self.num_pool)
        while len(found) < num:
            order = np.random.default_rng([self.seed, 1, turn]).permutation(self.num_pool)
            found += [self.num_own + int(place) for place in order[at : at + num - len(found)]]
            turn, at = turn + 1, 0
        return found

    def _own(self, epoch: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng([self.seed, 0, epoch])
        num, batch_size = self.num_own, self._own_size
        order = rng.permutation(num) if self.draw is None else rng.choice(num, size=num, p=np.asarray(self.draw))
        sizes = np.asarray(self.sizes[:num])
        uneven = len(sizes) > 0 and sizes.max() > sizes.min()
        if uneven:
            wide = batch_size * 32
            order = np.concatenate([part[np.argsort(sizes[part], kind="stable")]
                                    for part in np.split(order, range(wide, len(order), wide))])
        updates = [tuple(int(at) for at in order[start : start + batch_size])
                   for start in range(0, len(order), batch_size)]
        return [updates[at] for at in rng.permutation(len(updates))] if uneven else updates


def balanced_draw(rows: Sequence[Row], *, multi_label: bool = False) -> tuple[float, ...]:
    """Every class is drawn alike; a row with several classes is drawn as its rarest one, a soft label as its likeliest
    one."""
    def classes(row: Row) -> list[int]:
        if isinstance(row.target, np.ndarray) and not multi_label:
            return [int(row.target.argmax())]
        if isinstance(row.target, np.ndarray):
            return [int(place) for place in np.flatnonzero(row.target > 0.5)] or [-1]
        return [int(row.target)]

    counts: dict[int, int] = {}
    for row in rows:
        for place in classes(row):
            counts[place] = counts.get(place, 0) + 1
    weights = np.array([max(1 / counts[place] for place in classes(row)) for row in rows])
    return tuple(weights / weights.sum())
