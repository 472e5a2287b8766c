"""What a labelled task's network stands on: a backbone that makes features, and a processor that feeds it.

One file a family. `open_backbone` finds the family for a model source; `restore_backbone` builds the same architecture
from what `save` wrote, with weights still to be filled in by the caller.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from luthier.store import write_json
from luthier.types import Example

CONFIG = "backbone.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One example as the network reads it."""

    id: str
    data: Any
    """Token ids, tuple[int, ...] (text); np.uint8 [height, width, 3] (image); np.float32 [width] (features)."""
    size: int
    """Tokens (text), else 1: what batches are made equal by."""
    target: Any = None
    """int (one class); np.float32 [classes] (several classes, or a soft label); np.int64 [size] (tags, -100 carries no
    loss); Row (embed: the matching text); None where nothing is known."""
    weight: float = 1.0
    teacher: Any = None
    """np.float32 [classes]: logits of a teacher, where the row is distilled."""
    told: Any = None
    """Mapping from a regularizer's kind to np.float32 [classes]: what its teacher answers to the row."""
    part: str = ""
    """Name of the classes that take part in the row's loss; empty for all of them."""

    def but(self, **changes: Any) -> Row:
        """A copy with some fields changed."""
        return replace(self, **changes)


class Processor(abc.ABC):
    """From examples to rows to tensors. Picklable and deterministic: augmentation is a step of training."""

    @abc.abstractmethod
    def read(self, example: Example) -> Row:
        """Tokenise or decode, without a target. DataError names the example's file when it cannot be read."""

    def read_many(self, examples: Sequence[Example]) -> list[Row]:
        """`read` for many; a family that is faster in bulk overrides it."""
        return [self.read(example) for example in examples]

    @abc.abstractmethod
    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """What the backbone's forward takes: rows padded to one size and stacked."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `restore_backbone` needs to make an equal processor."""


class Backbone(nn.Module, abc.ABC):
    """Features of an input. Subclasses set `family`, `reads`, `width` and `processor`."""

    family: str
    """Name in backbone.json, such as `transformers-text`."""
    reads: Literal["text", "image", "features"]
    width: int
    """Length of a feature vector."""
    processor: Processor

    @abc.abstractmethod
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Text: [rows, tokens, width], to be pooled by the head. Image and features: [rows, width]."""

    @abc.abstractmethod
    def groups(self) -> dict[str, list[str]]:
        """Every parameter's name (as in `named_parameters` of this module) exactly once, by layer group, bottom
        first; the order in which gradual unfreezing goes from the end to the beginning."""

    def modules_of(self, group: str) -> list[nn.Module]:
        """The modules that hold a parameter of a layer group directly (its batch norms among them), and those that hold
        nothing else (its dropout among them)."""
        names = self.groups()[group]
        owners = {name.rpartition(".")[0] for name in names}
        others = {name for name, _ in self.named_parameters()} - set(names)
        shared = {name[:at] for name in others for at, letter in enumerate(name) if letter == "."}
        inside = {name[:at] for name in names for at, letter in enumerate(name) if letter == "."} - shared
        return [module for name, module in self.named_modules()
                if name in owners or name in inside
                or any(name.startswith(f"{above}.") for above in inside)]

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-ready facts from which `restore` builds the same architecture without the original files."""

    def save(self, folder: Path) -> None:
        """Write backbone.json and the processor's files, no weights."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, {"family": self.family, **self.describe()})
        self.processor.save(folder)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def read_config(folder: Path) -> dict[str, Any]:
    """The content of backbone.json."""
    return json.loads((folder / CONFIG).read_text("utf-8"))
