"""What one evaluation of a labelled task works with: the frozen rows, the settings, and the systems' answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from luthier.errors import DataError
from luthier.evaluate.base import Evaluate
from luthier.evaluate.compare import units
from luthier.evaluate.labels.baselines import Split
from luthier.evaluate.labels.metrics import Answers
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.progress import Progress
from luthier.store import Artifact, Store, canonical
from luthier.task import Task
from luthier.types import Example, digest


@dataclass(frozen=True)
class Said:
    """What one system answered to all test rows."""

    answers: Answers
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How it was made and what it cost: cpu_s, C, columns."""
    shown: Sequence[Any] = ()
    """tag: pieces given; embed: texts found first, by row."""


@dataclass
class Bench:
    """The frozen rows and everything that systems are opened from."""

    task: Task
    spec: Evaluate
    labels: tuple[str, ...]
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    foreign: list[Example]
    """Test rows that belong to none of the classes."""
    facts: dict[str, Any]
    data: Artifact
    model: Artifact
    run: Artifact | None
    store: Store
    root: Path
    progress: Progress
    notes: list[str]

    def wants(self, system: str) -> bool:
        return system in self.spec.labels.systems

    def open_base(self, labels: Sequence[str]) -> Any:
        """The base model before training, with a head that nobody reads."""
        from luthier.adapt.labelled import open_label_model
        from luthier.adapt.network import texts_of

        known = [example for example in self.train if example.labelled]
        return self._placed(open_label_model(self.model, labels, seed=0, texts=texts_of(known)))

    def open_tuned(self) -> Any:
        """The trained model of the run."""
        from luthier.adapt.labelled import load_label_model

        assert self.run is not None
        return self._placed(load_label_model(self.run.path / "best"))

    def _placed(self, model: Any) -> Any:
        """Image paths start from the project folder."""
        if hasattr(model.processor, "root"):
            model.processor.root = self.root
        return model

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        """int64 [n], or bool [n, classes] with several labels a row."""
        places = {label: at for at, label in enumerate(self.labels)}
        if self.task.multi_label:
            found = np.zeros((len(examples), len(self.labels)), dtype=bool)
            for row, example in enumerate(examples):
                found[row, [places[label] for label in example.labels or ()]] = True
            return found
        return np.array([places[(example.labels or ("",))[0]] for example in examples], dtype=np.int64)

    def split(self, examples: Sequence[Example]) -> Split:
        return Split(examples, self.targets(examples))


def open_bench(*, data: Artifact, model: Artifact, run: Artifact | None, task: Task, spec: Evaluate, store: Store,
               root: Path, progress: Progress) -> Bench:
    """Read and sort the rows. DataError when there is no test row, or none to train baselines on."""
    from luthier.prepare.base import read_examples
    from luthier.prepare.labels import read_labels

    labels = read_labels(data)
    rows = [example for example in read_examples(data) if example.labelled or OUT_OF_SCOPE in example.tags]
    notes: list[str] = []
    known = set(labels)
    by: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    foreign: list[Example] = []
    unknown = 0
    for example in rows:
        if _is_foreign(example, task):
            foreign += [example] if example.split == "test" else []
        elif not set(example.labels or ()) <= known or (task.type == "embed" and not example.target):
            unknown += 1
        else:
            by[example.split].append(example)
    if unknown:
        notes.append(f"{unknown} rows carry a label that the task does not have; they were left out.")
    test = by["test"]
    if not test:
        raise DataError("the data has no labelled test row; raise prepare.split.test or add labelled rows")
    if not by["train"]:
        raise DataError("the data has no labelled train row, so there is nothing to compare with; add labelled rows")
    chosen, places = _chosen(test, spec), {example.id: at for at, example in enumerate(test)}
    chosen.sort(key=lambda example: places[example.id])
    resampled = units(chosen)
    facts = {
        "num_questions": len(chosen), "num_available": len(test), "num_unanswerable": 0,
        "num_documents": len({document for example in chosen for document in example.origin.documents}),
        "num_out_of_scope": len(foreign), "num_train": len(by["train"]), "num_validation": len(by["validation"]),
        "disjoint": data.summary.get("disjoint", "none"), "hash": frozen(chosen),
        "unit": "row" if resampled.name == "question" else resampled.name, "num_units": len(set(resampled.ids)),
        "labels": len(labels), "excluded": {"unknown label": unknown} if unknown else {},
    }
    return Bench(task=task, spec=spec, labels=labels, train=by["train"], validation=by["validation"], test=chosen,
                 foreign=_chosen(foreign, spec), facts=facts, data=data, model=model, run=run, store=store,
                 root=root, progress=progress, notes=notes)


def _is_foreign(example: Example, task: Task) -> bool:
    if OUT_OF_SCOPE in example.tags:
        return True
    return task.type in ("classify", "image") and not task.multi_label and example.labels == ()


def _chosen(rows: list[Example], spec: Evaluate) -> list[Example]:
    ranked = sorted(rows, key=lambda example: digest(str(spec.seed), example.id))
    return ranked[: spec.labels.max_rows]


def frozen(examples: Sequence[Example]) -> str:
    """sha256 over what is asked and what is right: equal hashes mean the same test."""
    from dataclasses import asdict

    return digest(*(canonical([e.question, e.image, e.labels, [asdict(tag) for tag in e.spans or ()], e.target])
                    for e in examples), length=64)
