"""Labelled data in files, and `prepare` run on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.prepare.base import Prepare, prepare
from luthier.spec import parse
from luthier.store import Artifact, Store
from luthier.task import Task

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(root: Path, *makers: Mapping[str, Any], task: Task | str = "classify", store: Path | None = None,
        **settings: Any) -> Artifact:
    """The artifact of these makers, in a project folder `root`."""
    spec = parse(Prepare, {"makers": list(makers), **settings}, local=root)
    return prepare(None, task if isinstance(task, Task) else Task.model_validate({"type": task}), spec,
                   store=Store(store or root / "store"), root=root)


def topics(number: int = 60, labels: Sequence[str] = ("card", "loan", "fraud")) -> list[dict[str, Any]]:
    """Rows with different texts, the labels in turn."""
    return [{"text": f"message {at} about the {labels[at % len(labels)]}", "label": labels[at % len(labels)]}
            for at in range(number)]
