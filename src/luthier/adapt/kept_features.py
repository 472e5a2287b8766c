"""Features of single rows, kept in the store: folds, subsets and pseudo-labelled rows find what was computed once.

Rows are written in packs (one for each call that computed something); an index lists the packs of a model. Two
processes that write at once may lose one pack from the index: its rows are then computed again, and nothing is wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence

import numpy as np

from luthier.adapt.backbones.base import Row
from luthier.store import Cache
from luthier.types import digest

VERSION = 2


class KeptFeatures:
    """The vectors of one model (`identity`: its weights, number format and way of reading) in a cache."""

    def __init__(self, cache: Cache, *identity: str):
        self.cache = cache
        self.index = digest("features", str(VERSION), *identity, length=40)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """float32 [width] by key, for the keys that are known."""
        wanted, found = set(keys), {}
        for pack in self._packs():
            missing = wanted - found.keys()
            content = self.cache.get(pack) if missing else None
            if content is None:
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                here = [(at, key.tobytes()) for at, key in enumerate(arrays["keys"])]
                if any(key in missing for _, key in here):
                    values = arrays["values"]
                    found.update((key, values[at]) for at, key in here if key in missing)
        return found

    def add(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Keep values float32 [rows, width]."""
        out = io.BytesIO()
        np.savez(out, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1), values=values)
        pack = digest(self.index, hashlib.blake2b(b"".join(keys)).hexdigest(), length=40)
        self.cache.put(pack, out.getvalue())
        packs = self._packs()
        if pack not in packs:
            self.cache.put(self.index, json.dumps([*packs, pack]).encode())

    def _packs(self) -> list[str]:
        return json.loads(self.cache.get(self.index) or b"[]")


def row_key(row: Row) -> bytes:
    """16 bytes that stand for what a row holds."""
    data = np.asarray(row.data)
    content = hashlib.blake2b(f"{data.dtype}{data.shape}".encode(), digest_size=16)
    content.update(np.ascontiguousarray(data).tobytes())
    return content.digest()
