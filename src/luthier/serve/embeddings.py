"""The index's encoder as an embeddings endpoint."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from luthier.errors import need
from luthier.index.embed import Encoder
from luthier.serve.errors import ApiError


class Embedder:
    """Counts tokens with the encoder's own tokenizer and refuses what it would have to cut."""

    def __init__(self, encoder: Encoder):
        transformers = need("transformers", extra="serve")
        self.encoder = encoder
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.files.folder, local_files_only=True)

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Unit vectors, float32 [n, d], and the tokens of all texts; ApiError for a text that is too long."""
        lengths = [len(ids) for ids in self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
        for at, length in enumerate(lengths):
            if length > self.encoder.max_tokens:
                raise ApiError(400, f"input[{at}] has {length} tokens; the encoder reads at most "
                               f"{self.encoder.max_tokens}. Split the text.", param="input",
                               code="context_length_exceeded")
        return self.encoder.encode(texts), sum(lengths)


def encoded(vector: np.ndarray, encoding: str) -> Any:
    """A list of floats, or little-endian float32 in base64, which OpenAI's client asks for."""
    if encoding == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")
    return [float(value) for value in vector]
