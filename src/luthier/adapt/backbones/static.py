"""Static word vectors (Word2Vec, GloVe) as a backbone: one vector a word, whatever stands beside it.

The baseline that every contextual model has to beat (Arora et al. 2017, Wieting & Kiela 2019), and a very fast model:
with the mean as pooling it is fastText's classifier, started from pretrained vectors.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.adapt.backbones.base import Backbone, Processor, Row
from luthier.adapt.backbones.text import padded, text_of
from luthier.adapt.backbones.word_vectors import read_vectors
from luthier.errors import ModelError
from luthier.models.sources import SourceFiles
from luthier.store import write_json
from luthier.types import Example, digest

FAMILY = "static-vectors"
WORDS = "words.json"
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
LIMIT = 100_000
"""Most words of a text, where nothing lower is asked for."""
LEAST_KNOWN = 0.1
"""A file that knows fewer of the train texts' words was made for other texts."""


class WordProcessor(Processor):
    """Cuts at white space and around punctuation. Id 0 is the pad and every word without a vector."""

    def __init__(self, words: Sequence[str], *, max_length: int):
        self.words, self.max_length = tuple(words), max_length
        self.places = {word: at for at, word in enumerate(self.words, 1)}

    def but(self, *, max_length: int) -> WordProcessor:
        """The same words with another limit, never above this one's."""
        return WordProcessor(self.words, max_length=min(max_length, self.max_length))

    def read(self, example: Example) -> Row:
        return self.read_many([example])[0]

    def read_many(self, examples: Sequence[Example]) -> list[Row]:
        found = self.encode([text_of(example) for example in examples])
        return [Row(example.id, tuple(ids), len(ids)) for example, ids in zip(examples, found)]

    def place(self, word: str) -> int:
        """Id of a word: as written, else in small letters."""
        return self.places.get(word) or self.places.get(word.lower(), 0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the words, cut at the limit; a text without words is one unknown word."""
        return [[self.place(word) for word in TOKEN.findall(text)[: self.max_length]] or [0] for text in texts]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Words of the whole texts, before cutting."""
        return [len(TOKEN.findall(text)) or 1 for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """First and one past the last character of every word that `encode` gives."""
        return [found.span() for found in TOKEN.finditer(text)][: self.max_length] or [(0, 0)]

    def unknown(self, texts: Sequence[str]) -> Counter[str]:
        """Words without a vector, with how often they occur."""
        return Counter(word for text in texts for word in TOKEN.findall(text) if not self.place(word))

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return padded(rows, 0)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / WORDS, list(self.words))


class StaticBackbone(Backbone):
    """Word vectors [rows, words, width], scaled so that their mean is the weighted mean of the known words."""

    reads = "text"
    family = FAMILY
    processor: WordProcessor  # type: ignore[assignment]

    def __init__(self, processor: WordProcessor, table: torch.Tensor, weights: torch.Tensor, *,
                 counted: dict[str, Any] | None = None):
        """table: [1 + words, width]; weights: [1 + words], 0 for the unknown word."""
        super().__init__()
        self.processor = processor  # type: ignore[assignment]
        self.width = table.shape[1]
        self.table = nn.Embedding(table.shape[0], table.shape[1], _weight=table)
        self.weights: torch.Tensor
        self.register_buffer("weights", weights)
        self.counted = counted or {}
        """How many words of the train texts have no vector."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        weights = self.weights[ids]
        size: Any = ids.shape[1]
        if mask is not None:
            weights, size = weights * mask, mask.sum(1, keepdim=True)
        share = weights * size / weights.sum(1, keepdim=True).clamp_min(1e-12)
        return self.table(ids) * share[..., None].to(self.table.weight.dtype)

    def groups(self) -> dict[str, list[str]]:
        return {"embeddings": ["table.weight"]}

    def describe(self) -> dict[str, Any]:
        return {"width": self.width, "num_words": len(self.processor.words), "max_length": self.processor.max_length,
                "words": digest(*self.processor.words), "weights": digest(str(self.weights.double().cpu().tolist())),
                "counted": self.counted}


def open_static(source: SourceFiles, *, pretrained: bool = True, dtype: str = "float32", max_length: int | None = None,
                seed: int = 0, texts: Sequence[str] = ()) -> StaticBackbone:
    """The vectors of a file: its commonest words, and those of the train texts. With `@tfidf` a word weighs
    ln((1 + texts) / (1 + texts with it)) + 1, as in scikit-learn (without train texts all weigh alike).

    Raises ModelError for a file that is no file of word vectors, or that knows hardly a word of the texts.
    """
    present = Counter(word for text in texts for word in set(TOKEN.findall(text)))
    both = {*present, *(word.lower() for word in present)}
    words, vectors = read_vectors(source.folder, wanted=both)
    processor = WordProcessor(words, max_length=min(max_length or LIMIT, LIMIT))
    counted: dict[str, Any] = {}
    if texts:
        unknown, total = processor.unknown(texts), sum(processor.lengths(texts))
        missed = sum(unknown.values())
        counted = {"train_words": total, "without_vector": missed,
                   "such_as": [word for word, _ in unknown.most_common(10)]}
        if missed > (1 - LEAST_KNOWN) * total:
            raise ModelError(f"model '{source.source}' has vectors for only {1 - missed / total:.0%} of the train "
                             f"texts' words, and none for such as {', '.join(counted['such_as'][:3])}; take vectors "
                             "made for this language")
    table = torch.zeros(1 + len(words), vectors.shape[1])
    if pretrained:
        table[1:] = torch.from_numpy(vectors)
    else:
        table[1:].normal_(std=float(vectors.std()), generator=torch.Generator().manual_seed(seed))
    weights = torch.ones(1 + len(words))
    if source.source.endswith("@tfidf") and texts:
        frequency = np.zeros(1 + len(words))
        for text in texts:
            frequency[[*{processor.place(word) for word in TOKEN.findall(text)}]] += 1
        weights = torch.from_numpy(np.log((1 + len(texts)) / (1 + frequency)) + 1).float()
    weights[0] = 0
    return StaticBackbone(processor, table.to(getattr(torch, dtype)), weights, counted=counted)


def restore_static(folder: Path, facts: dict[str, Any], *, dtype: str = "float32") -> StaticBackbone:
    """The architecture that `save` described, weights not filled in."""
    kept = json.loads((folder / WORDS).read_text("utf-8"))
    processor = WordProcessor(kept, max_length=int(facts["max_length"]))
    rows = 1 + len(processor.words)
    return StaticBackbone(processor, torch.zeros(rows, int(facts["width"]), dtype=getattr(torch, dtype)),
                          torch.zeros(rows), counted=facts["counted"])
