"""What makes two rows the same, in eight bytes a row: whoever shares a key with nobody need not be looked at again."""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def key_of(text: str) -> int:
    """64 bits that stand for a text. Equal keys are a reason to compare, no proof: the texts decide."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def shared(keys: array[int]) -> np.ndarray:
    """bool [rows]: which keys stand more than once."""
    import numpy as np

    values = np.frombuffer(keys, np.uint64) if len(keys) else np.zeros(0, np.uint64)
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    found = np.zeros(len(values), bool)
    found[order[1:][same]] = found[order[:-1][same]] = True
    return found
