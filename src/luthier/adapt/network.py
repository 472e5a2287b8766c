"""The network of a labelled task: a backbone, a pooling, a head; and the model record that carries it around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.adapt.backbones.base import Backbone, Processor, Row
from luthier.adapt.head import Head
from luthier.errors import DataError
from luthier.task import Task
from luthier.types import Example

HEAD = "head"
"""Name of the uppermost layer group."""
IGNORED = -100
"""Target of a token that carries no loss (tag)."""


class Pool(nn.Module):
    """Token vectors [rows, tokens, width] and their mask to [rows, width]."""

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(width, 1) if kind == "attention" else None

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if self.kind == "cls":
            return hidden[:, 0]
        if self.kind == "last":
            if mask is None:
                return hidden[:, -1]
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        if self.kind == "max":
            return (hidden if mask is None else hidden.masked_fill(mask[..., None] == 0, float("-inf"))).amax(1)
        if self.score is not None:
            scores = self.score(hidden).squeeze(-1)
            if mask is not None:
                scores = scores.masked_fill(mask == 0, float("-inf"))
            return (scores.softmax(-1)[..., None] * hidden).sum(1)
        if mask is None:
            return hidden.mean(1)
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


class Network(nn.Module):
    """Logits [rows, classes]; tag: [rows, tokens, classes]; embed: unit vectors [rows, width].

    Inputs with the key `features` (pooled, finished) skip the backbone: that is how a head is trained on features
    that were computed once. Groups named in `frozen` stay in evaluation mode, so that neither dropout nor a batch
    norm's running figures move in layers that do not train.
    """

    def __init__(self, backbone: Backbone, task: Task, *, outputs: int, head: Head, pooling: str, seed: int):
        super().__init__()
        self.backbone, self.task_type = backbone, task.type
        self.pooling, self.spec = pooling, head
        self.frozen: frozenset[str] = frozenset()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text = backbone.reads == "text" and task.type != "tag"
            self.pool = Pool(pooling, backbone.width) if text else None
            layers: list[nn.Module] = []
            if task.type != "embed":
                layers.append(nn.Dropout(head.dropout))
                width = backbone.width
                if head.hidden:
                    layers += [nn.Linear(width, head.hidden), nn.Tanh(), nn.Dropout(head.dropout)]
                    width = head.hidden
                last = nn.Linear(width, outputs)
                nn.init.normal_(last.weight, std=0.02)
                nn.init.zeros_(last.bias)
                layers.append(last)
            self.head = nn.Sequential(*layers)

    @property
    def pool_trains(self) -> bool:
        """Whether the pooling has weights of its own: features cannot be computed once then."""
        return self.pool is not None and self.pool.score is not None

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Pooled features [rows, width]; tag: [rows, tokens, width]."""
        if "features" in inputs:
            return inputs["features"]
        found = self.backbone(inputs)
        return found if self.pool is None else self.pool(found, inputs.get("attention_mask"))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        found = self.features(inputs)
        if self.task_type == "embed":
            return nn.functional.normalize(found.float(), dim=-1)
        last: Any = self.head[-1]
        return self.head(found.to(last.weight.dtype))

    def groups(self) -> dict[str, list[str]]:
        """Names of all parameters by layer group, bottom first, the head (and a pooling that learns) last."""
        found = {group: [f"backbone.{name}" for name in names] for group, names in self.backbone.groups().items()}
        top = [name for name, _ in self.named_parameters() if not name.startswith("backbone.")]
        return {**found, HEAD: top} if top else found

    def freeze(self, groups: frozenset[str]) -> None:
        """Groups that stay in evaluation mode from now on."""
        self.frozen = groups
        told = getattr(self.backbone, "set_frozen", None)
        if told is not None:
            told(groups - {HEAD})

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        if mode and self.frozen:
            for group in self.frozen - {HEAD}:
                for module in self.backbone.modules_of(group):
                    module.eval()
            if HEAD in self.frozen:
                self.head.eval()
            if self.frozen >= set(self.backbone.groups()):
                self.backbone.eval()  # also what belongs to no group, such as dropout between layers
        return self


@dataclass(frozen=True)
class LabelModel:
    """A loaded model of a labelled task: what training, evaluation, release and serving receive."""

    module: Network
    task: Task
    labels: tuple[str, ...]
    """Names of the outputs, in their order; tag: O, B-x, I-x, …; embed: ()."""
    name: str
    method: Any
    """The Method that made it trainable."""
    fingerprint: str = ""
    """Identifies untouched weights and the way inputs are read, for caching features; empty once tuned."""
    temperature: float = 1.0
    """Logits are divided by this before they become probabilities (calibration)."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Named sets of labels, such as the tasks that were learned in sequence; a caller who knows the task may ask for an
    answer among its labels alone. Empty for none."""

    @property
    def processor(self) -> Processor:
        return self.module.backbone.processor

    @property
    def groups(self) -> dict[str, list[str]]:
        return self.module.groups()

    def but(self, **changes: Any) -> LabelModel:
        return replace(self, **changes)

    def rows(self, examples: Sequence[Example], *, targets: bool = True) -> list[Row]:
        """Examples as the network reads them, with their targets (None for a row without a label)."""
        rows = self.processor.read_many(examples)
        if not targets:
            return rows
        if self.task.type == "embed":
            return self._pairs(examples, rows)
        places = {label: at for at, label in enumerate(self.labels)}
        return [row.but(target=self._target(example, row, places), weight=example.weight)
                for example, row in zip(examples, rows)]

    def _target(self, example: Example, row: Row, places: dict[str, int]) -> Any:
        if self.task.type == "tag":
            return None if example.spans is None else self._tags(example, row, places)
        if example.labels is None:
            return None
        unknown = [label for label in example.labels if label not in places]
        if unknown:
            raise DataError(f"example {example.id} ({example.origin.where}) has the label '{unknown[0]}', which the "
                            f"model does not have; it has {len(places)}: {', '.join(list(places)[:8])}…")
        if self.task.multi_label:
            target = np.zeros(len(places), dtype=np.float32)
            target[[places[label] for label in example.labels]] = 1
            return target
        if len(example.labels) != 1:
            raise DataError(f"example {example.id} ({example.origin.where}) has {len(example.labels)} labels, and the "
                            "task gives one class to each; set task.multi_label: true where several may apply")
        return places[example.labels[0]]

    def _tags(self, example: Example, row: Row, places: dict[str, int]) -> np.ndarray:
        """BIO codes of the tokens; special tokens carry no loss."""
        codes = np.full(row.size, IGNORED, dtype=np.int64)
        offsets = self.processor.offsets(example.input)  # type: ignore[attr-defined]
        spans = sorted(example.spans or (), key=lambda tag: tag.start)
        opened: int | None = None
        for at, (start, end) in enumerate(offsets[: row.size]):
            if end <= start:
                continue
            inside = next((n for n, tag in enumerate(spans) if start < tag.end and end > tag.start), None)
            if inside is None:
                codes[at], opened = places["O"], None
            else:
                kind = "I" if opened == inside else "B"
                codes[at], opened = places[f"{kind}-{spans[inside].label}"], inside
        return codes

    def _pairs(self, examples: Sequence[Example], rows: list[Row]) -> list[Row]:
        encode = self.processor.encode  # type: ignore[attr-defined]
        found = []
        for example, row in zip(examples, rows):
            texts = [] if example.target is None else [example.target, *example.negatives]
            others = tuple(Row(f"{example.id}/{at}", tuple(ids), len(ids))
                           for at, ids in enumerate(encode(texts) if texts else []))
            found.append(row.but(target=others or None, weight=example.weight))
        return found


def tag_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The outputs of a tagger (IOB2): O, then B- and I- of every label."""
    return ("O", *(f"{part}-{label}" for label in labels for part in ("B", "I")))




def texts_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Every text that the examples hold: inputs, and for embed the matching texts and the negatives."""
    return tuple(text for example in examples for text in (example.input, example.target, *example.negatives)
                 if isinstance(text, str))
