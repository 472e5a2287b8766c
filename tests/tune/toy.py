"""A toy search for the tests, importable by worker processes: `python toy.py FOLDER KIND WORKERS SLEEP TRIALS`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from luthier.tune.base import Tune
from luthier.tune.search import search
from luthier.tune.space import build

GRID = {"a": {"int": [0, 3]}, "b": {"choice": ["x", "y", "z"]}}
OPEN = {"a": {"range": [0, 1]}, "b": {"log": [1e-4, 1]}}


@dataclass(frozen=True)
class Toy:
    """Squared distance from (2, y), after a nap; notes every call in a file."""

    log: Path
    sleep: float = 0.0
    poison: str = ""
    """A point with this b kills its process."""

    def __call__(self, attempt) -> float:
        with self.log.open("a") as file:
            file.write(f"{attempt.number}\n")
        if self.poison and attempt.point["b"] == self.poison:
            os.kill(os.getpid(), 9)
        time.sleep(self.sleep)
        b = attempt.point["b"]
        return (float(attempt.point["a"]) - 2) ** 2 + (b != "y" if isinstance(b, str) else b)


def toy(folder: Path, searcher="grid", *, space=None, sleep=0.0, poison="", **fields):
    spec = Tune(space=space or (GRID if searcher == "grid" else OPEN), searcher=searcher, **fields)
    return search(Toy(folder / "calls.txt", sleep, poison), build(spec.space, parse=lambda overrides: None), spec,
                  folder=folder)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    toy(home, sys.argv[2], workers=int(sys.argv[3]), sleep=float(sys.argv[4]), trials=int(sys.argv[5]))
