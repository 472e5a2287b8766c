"""Dense search over unit vectors: exact, by one matrix product. Enough to about 100,000 passages on one machine.

`VectorSearch` is the seam where an approximate index (faiss, a vector database) docks later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from luthier.errors import StoreError
from luthier.store import write_bytes


class VectorSearch(Protocol):
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit queries [q, d] → item numbers int64 [q, min(k, n)] and cosines float32, best first."""
        ...


class ExactVectors:
    """Compares each query with every vector."""

    def __init__(self, vectors: np.ndarray):
        """`vectors`: float32 [n, d], each of length 1."""
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit queries [q, d] → item numbers int64 [q, min(k, n)] and cosines float32, best first, ties in order."""
        n = len(self.vectors)
        k = min(k, n)
        items = np.empty((len(queries), k), dtype=np.int64)
        cosines = np.empty((len(queries), k), dtype=np.float32)
        step = max(1, 50_000_000 // max(n, 1))  # at most 200 MB of scores at a time
        for begin in range(0, len(queries), step):
            scores = queries[begin : begin + step] @ self.vectors.T
            for row, found in enumerate(scores, start=begin):
                # everything that ties with the k-th is a candidate, so the order does not depend on the partition
                candidates = np.flatnonzero(found >= np.partition(found, n - k)[n - k]) if k < n else np.arange(n)
                best = candidates[np.argsort(-found[candidates], kind="stable")][:k]
                items[row], cosines[row] = best, found[best]
        return items, cosines

    def save(self, path: Path) -> None:
        from safetensors.numpy import save

        write_bytes(path, save({"vectors": self.vectors}))

    @classmethod
    def load(cls, path: Path) -> ExactVectors:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return cls(load_file(path)["vectors"])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise StoreError(f"{path} cannot be read ({error}); delete the index and make it again") from None
