"""A labelled project that grows, on a tiny random encoder that learns letters."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luthier.progress import Silent
from luthier.project import Project
from luthier.project.new import new
from luthier.release.base import live_release, read_release
from luthier.testing import tiny_encoder

LABELS = ("ant", "bee", "cat")
FAST = ("prepare.makers=[{kind: rows, path: data}]", "adapt.model=./tiny", "adapt.dtype=float32",
        "train.epochs=4", "train.batch_size=16",
        "train.learning_rate=0.003", "train.verify_resume=false", "evaluate.bootstrap_samples=200",
        "evaluate.min_questions=2", "evaluate.labels.latency_rows=0", "evaluate.labels.systems=[majority, tuned]",
        "release.system=tuned", "release.gate.beats=null", "release.gate.min_questions=1", "release.probes=2",
        "watch.least_past=24", "watch.gate.unsure=promote")


def texts(num: int, *, seed: int, labels: Sequence[str] = LABELS, wrong: bool = False) -> list[tuple[str, str]]:
    """(text, label): random letters in which the label's first letter is common; `wrong` gives each the next label."""
    rng = np.random.default_rng([seed, len(labels)])
    found = []
    for at in range(num):
        label = labels[at % len(labels)]
        letters = rng.choice([*"defghijklmnopqrstuvwxyz"], size=12)
        letters[rng.random(12) < 0.7] = label[0]
        said = labels[(at + 1) % len(labels)] if wrong else label
        found.append(("".join(letters), said))
    return found


def write(root: Path, name: str, rows: Sequence[tuple[str, str]]) -> Path:
    file = root / "data" / name
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return file


def make(root: Path, *, first: int = 120) -> Path:
    """A project folder with `data/a.csv`."""
    (root / "rows").mkdir(parents=True)
    source = root / "rows" / "a.csv"
    with source.open("w", newline="") as handle:
        csv.writer(handle).writerows([["text", "label"], *texts(first, seed=1)])
    new(root / "p", task="classify", data=root / "rows")
    tiny_encoder(root / "p" / "tiny", layers=1, dropout=0.0)
    return root / "p"


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder, overrides=(*FAST, *overrides))


def run(folder: Path, *overrides: str) -> Path:
    list(opened(folder, *overrides).run())
    return live(folder)


def live(folder: Path) -> Path:
    return live_release(opened(folder).releases, "p")


def label(folder: Path) -> str:
    return read_release(live(folder)).label


class Counting(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str, **fields: Any) -> None:
        self.lines.append(message)


def artifacts(folder: Path) -> set[tuple[str, str]]:
    return {(one.stage, one.id) for one in opened(folder).store.artifacts()}
