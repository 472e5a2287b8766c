"""TF-IDF as a backbone: every run of words or letters speaks for or against each class, and what it says is added up.

A linear model over some 100,000 columns of which a text fills a few hundred: the weights lie in a table [columns,
classes], a text looks up its rows, and no vector of the table's height is ever made. The features are the classes'
evidence, so that the head is the identity with the classes' own biases.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.adapt.backbones.base import Backbone, Processor, Row
from luthier.adapt.backbones.ngrams import Ngrams
from luthier.adapt.backbones.text import text_of
from luthier.types import Example

FAMILY = "tfidf"


class TfidfProcessor(Processor):
    """Reads a text letter by letter (a token is a character's code point) and counts its runs when a batch is made, so
    that words can be taken out of a row to see what they did. Nothing is cut."""

    tokenizer = None
    max_length = sys.maxsize

    def __init__(self, ngrams: Ngrams):
        self.ngrams = ngrams

    def read(self, example: Example) -> Row:
        ids = self.encode([text_of(example)])[0]
        return Row(example.id, tuple(ids), len(ids))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Code points of the characters."""
        return [[ord(letter) for letter in text] for text in texts]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Characters of the texts."""
        return [len(text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """First and one past the last character of every token: one each."""
        return [(at, at + 1) for at in range(len(text))]

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """`columns` int64 [known runs of all rows], `values` float32 of the same length, `starts` int64 [rows]."""
        found = [self.ngrams.read("".join(map(chr, row.data))) for row in rows]
        starts = np.cumsum([0, *(len(columns) for columns, _ in found[:-1])])
        return {"columns": torch.from_numpy(np.concatenate([columns for columns, _ in found])),
                "values": torch.from_numpy(np.concatenate([values for _, values in found])),
                "starts": torch.from_numpy(starts.astype(np.int64))}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ngrams.save(folder)


class TfidfBackbone(Backbone):
    """What the runs of a text say of each class, [rows, 1, classes]: one vector a text, as if it were one token."""

    reads = "text"
    family = FAMILY
    processor: TfidfProcessor  # type: ignore[assignment]

    def __init__(self, processor: TfidfProcessor, table: torch.Tensor):
        """table: [columns, classes]."""
        super().__init__()
        self.processor = processor  # type: ignore[assignment]
        self.width = table.shape[1]
        self.table = nn.Embedding(table.shape[0], table.shape[1], _weight=table)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        weight = self.table.weight
        found = nn.functional.embedding_bag(inputs["columns"], weight, inputs["starts"], mode="sum",
                                            per_sample_weights=inputs["values"].to(weight.dtype))
        return found[:, None]

    def groups(self) -> dict[str, list[str]]:
        return {"table": ["table.weight"]}

    def describe(self) -> dict[str, Any]:
        return {"width": self.width, "columns": self.processor.ngrams.columns}


def restore_tfidf(folder: Path, facts: dict[str, Any], *, dtype: str = "float32") -> TfidfBackbone:
    """The architecture that `save` described, weights not filled in."""
    ngrams = Ngrams.restore(folder)
    table = torch.zeros(ngrams.columns, int(facts["width"]), dtype=getattr(torch, dtype))
    return TfidfBackbone(TfidfProcessor(ngrams), table)
