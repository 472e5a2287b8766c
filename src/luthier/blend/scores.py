"""What a blend can do: new skill on the validation rows of the data, old skill on what its ancestors were for.

Test rows are never read. Labelled tasks: the task's metric on either side. Assistants and completion: the loss of the
answers of validation rows, and the loss of answers to general instructions, the probe of `evaluate`'s retention (both
in nats per token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.evaluate.loss import Row, last_run, token_losses
from luthier.evaluate.retention import Retention, load_instructions
from luthier.evaluate.systems import chat_example
from luthier.prepare.base import read_examples
from luthier.progress import Progress
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.past import FOLDER, load_past
from luthier.types import Example


@dataclass(frozen=True, kw_only=True)
class Skill:
    """What one axis of the table measures."""

    metric: str
    better: str
    """higher or lower."""
    n: int
    where: str
    """The rows, in words."""

    def worth(self, value: float) -> float:
        """The figure turned so that higher is better."""
        return value if self.better == "higher" else -value

    def dump(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of both axes."""

    new: Sequence[Example]
    old: Sequence[Example]
    old_where: str
    """Where the old rows come from; empty where there are none."""


def ancestors(run: Artifact, store: Store) -> list[Artifact]:
    """The runs that this one's training began from, the nearest first; those that are gone from the store end it. A
    blend stands for the run that it was made from."""
    found: list[Artifact] = []
    here: Artifact | None = run
    while here is not None:
        source = here.inputs.get("run") if here.stage == "blend" else here.inputs.get("start")
        before = parent(source, store)
        if before is not None and here.stage != "blend":
            found.append(before)
        here = before
    return found


def parent(reference: Any, store: Store) -> Artifact | None:
    """The artifact that an input `stage/id` names; None where there is none (any more)."""
    stage, slash, id = str(reference or "").partition("/")
    return store.find(stage, id) if slash else None


def data_of(run: Artifact, store: Store) -> Artifact | None:
    """The rows that a run, or the run behind a blend, was trained on."""
    return parent(run.inputs.get("data"), store)


def rows_of(run: Artifact, data: Artifact, task: Task, store: Store, *, most: int, old: Sequence[Example] | None
            ) -> Rows:
    """Validation rows of the data, those that an ancestor was validated on apart; where the ancestors' data is gone,
    the rows that they kept in memory. `old` are rows that the caller gives. DataError without validation rows."""
    from luthier.train.run import spread

    validation = validation_rows(data, task)
    if not validation:
        raise DataError("the data has no validation rows to compare blends by; raise prepare.split.validation")
    where = "rows given by the caller"
    if old is None:
        old, where = _of_ancestors(run, task, store)
    known = {example.id for example in old}
    fresh = [example for example in validation if example.id not in known] or validation
    return Rows(new=spread(list(fresh), most), old=spread(list(old), most), old_where=where if old else "")


def validation_rows(data: Artifact, task: Task) -> list[Example]:
    """Those with a right answer; of a completion task every text."""
    return [example for example in read_examples(data, "validation") if example.labelled or not task.labelled]


def _of_ancestors(run: Artifact, task: Task, store: Store) -> tuple[list[Example], str]:
    found: dict[str, Example] = {}
    before = ancestors(run, store)
    for one in before:
        data = data_of(one, store)
        for example in validation_rows(data, task) if data is not None else ():
            found.setdefault(example.id, example)
    if found:
        return [*found.values()], "validation rows of the data before"
    for one in before:
        past = load_past(one.path / FOLDER, lambda: None)
        if past.rows:
            return list(past.rows), "past rows kept in memory (replay may have trained on them)"
    return [], ""


class LabelScores:
    """Both axes of a labelled task."""

    def __init__(self, task: Task, labels: Sequence[str], rows: Rows, parts: Mapping[str, Sequence[str]],
                 part_of: Mapping[str, str]):
        from luthier.train.labelled.score import LOWER

        self.parts, self.part_of = parts, part_of
        better = "lower" if task.metric in LOWER else "higher"
        self.sides = {"new": _known(rows.new, task, labels), "old": _known(rows.old, task, labels)}
        if not self.sides["new"]:
            raise DataError("no validation row carries a label that the model has; check the data and the run")
        self.new = Skill(metric=task.metric, better=better, n=len(self.sides["new"]), where="new validation rows")
        self.old = Skill(metric=task.metric, better=better, n=len(self.sides["old"]),
                         where=rows.old_where) if self.sides["old"] else None

    def __call__(self, model: Any, *, only_new: bool = False) -> dict[str, float]:
        """`new`, `new_loss`, `old`, `old_loss` of one model."""
        from luthier.train.labelled.score import validate

        found = {}
        for side, examples in self.sides.items():
            if examples and not (only_new and side == "old"):
                rows = [row.but(part=self.part_of.get(row.id, "")) for row in model.rows(examples)]
                value, loss, _ = validate(model, examples, rows, parts=self.parts)
                found |= {side: float(value), f"{side}_loss": float(loss)}
        return found


def _known(rows: Sequence[Example], task: Task, labels: Sequence[str]) -> list[Example]:
    """Rows whose right answer the model can give."""
    if task.type == "embed":
        return [row for row in rows if row.target is not None]
    if task.type == "tag":
        kinds = {label[2:] for label in labels if label != "O"}
        return [row for row in rows if row.spans is not None and {tag.label for tag in row.spans} <= kinds]
    return [row for row in rows if row.labels is not None and set(row.labels) <= set(labels)
            and (task.multi_label or row.labels)]


class TextScores:
    """Both axes of an assistant or a completion model."""

    def __init__(self, task: Task, rows: Rows, retention: Retention, root: Path, progress: Progress):
        self.task, self.progress = task, progress
        general = [chat_example(row["instruction"], row["response"], system=task.system)
                   for row in load_instructions(retention, root)]
        self.sides: dict[str, list[Example]] = {"new": list(rows.new), "old": general or list(rows.old)}
        self.new = Skill(metric="loss", better="lower", n=len(self.sides["new"]),
                         where="answers of new validation rows, nats per token")
        where = "answers to general instructions" if general else rows.old_where
        self.old = Skill(metric="loss", better="lower", n=len(self.sides["old"]),
                         where=f"{where}, nats per token") if self.sides["old"] else None

    def __call__(self, model: Any, *, only_new: bool = False) -> dict[str, float]:
        """`new` and `old` of one model, in nats per token."""
        found = {}
        for side, examples in self.sides.items():
            if examples and not (only_new and side == "old"):
                losses = token_losses(model.module, [self._row(model, example) for example in examples],
                                      progress=self.progress, what=f"{side} skill")
                found[side] = sum(loss.sum for loss in losses) / max(1, sum(loss.tokens for loss in losses))
        return found

    def _row(self, model: Any, example: Example) -> Row:
        from luthier.train.render import render

        made = render(model.tokenizer, example, stop_id=model.stop_ids[0], system=self.task.system)
        return Row(made.ids, last_run(made.loss) if example.target is not None else made.loss)
