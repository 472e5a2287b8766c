"""Decoded images on disk, read back through a memory map.

One file of equal records per processor setting, and a list of their keys: a later epoch, trial or fold copies bytes
instead of decoding, and the operating system keeps in memory what fits.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from luthier.store import tell_disk_trouble

KEY = 32  # hexadecimal digits of a key


class Records:
    """uint8 arrays of one shape by key (32 hexadecimal digits). Safe with several processes; only ever grows."""

    def __init__(self, folder: Path, shape: tuple[int, ...]):
        self.folder, self.shape = folder, shape
        self.bytes = int(np.prod(shape))
        self._where: dict[str, int] = {}
        self._read_to = 0  # bytes of the key list that are known
        self._map: np.ndarray | None = None
        self._refresh()

    def __getstate__(self):  # a worker process maps the file itself
        return {"folder": self.folder, "shape": self.shape}

    def __setstate__(self, state):
        self.__init__(state["folder"], state["shape"])

    def __len__(self) -> int:
        return len(self._where)

    def get(self, key: str) -> np.ndarray | None:
        """A read-only view of the record, or None."""
        index = self._where.get(key)
        if index is None:
            return None
        if self._map is None or index >= len(self._map):
            count = (self.folder / "records.bin").stat().st_size // self.bytes
            self._map = np.memmap(self.folder / "records.bin", np.uint8, mode="r", shape=(count, *self.shape))
        return self._map[index]

    def put(self, items: dict[str, np.ndarray]) -> None:
        """Append what is not there yet. The records are written before their keys, so a kill between loses both."""
        from filelock import FileLock

        with tell_disk_trouble(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                self._refresh()
                fresh = {key: value for key, value in items.items() if key not in self._where}
                start = len(self._where)
                file = os.open(self.folder / "records.bin", os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    with os.fdopen(os.dup(file), "r+b") as out:
                        out.seek(start * self.bytes)
                        for value in fresh.values():
                            assert value.shape == self.shape and value.dtype == np.uint8
                            out.write(np.ascontiguousarray(value).tobytes())
                    os.fsync(file)
                finally:
                    os.close(file)
                with (self.folder / "keys").open("ab") as keys:
                    keys.truncate(self._read_to)  # half a key, left by a killed process
                    keys.write("".join(fresh).encode("ascii"))
                self._refresh()

    def _refresh(self) -> None:
        try:
            with (self.folder / "keys").open("rb") as file:
                file.seek(self._read_to)
                text = file.read().decode("ascii")
        except FileNotFoundError:
            return
        for at in range(0, len(text) - KEY + 1, KEY):
            self._where[text[at:at + KEY]] = len(self._where)
            self._read_to += KEY
