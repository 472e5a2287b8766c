"""After a labelled training: choose the rows that are stored with the model, and let the regularizers remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.adapt import predict
from luthier.adapt.backbones.base import Row
from luthier.adapt.network import IGNORED, LabelModel
from luthier.progress import Silent
from luthier.train.keeps import Candidates
from luthier.train.labelled.checks import names_of
from luthier.train.regularizers import Setting
from luthier.types import Example

if TYPE_CHECKING:
    from luthier.train.base import Train


def remember(setting: Setting, spec: Train, *, examples: Sequence[Example]) -> dict[str, Any]:
    """The arguments of `luthier.train.past.save_past`. `examples` are the rows that were just learned, in the order of
    `setting.rows`; those that were replayed come out of the store and compete for it again. Stored rows leave it where
    a label of theirs is no longer among the model's."""
    kept = {one.kind: one.remember(setting) for one in spec.regularizers}
    past, labelled = setting.past, [example for example in examples if example.labelled]
    seen = (past.facts.get("seen", 0) if past is not None else 0) + len(labelled)
    seed = setting.seed if past is None else past.store_seed(setting.seed)
    found: dict[str, Any] = {"labels": setting.model.labels, "kept": kept,
                             "facts": {"seen": seen, "store_seed": seed}}
    if spec.keep is None:
        return found
    again = {example.id for example in labelled}
    known = {*setting.model.labels} if setting.model.task.type in ("classify", "image") else \
        {name.partition("-")[2] for name in setting.model.labels}
    old = [example for example in (past.rows if past is not None else ()) if example.id not in again
           and known >= {*names_of(example)}]
    rows = [*old, *labelled]
    places, logits = choose(setting, spec, rows, num_old=len(old), num_seen=seen, seed=seed)
    found["rows"] = [rows[at] for at in places]
    if logits is not None:
        found["logits"] = {example.id: values for example, values in zip(found["rows"], logits)}
    return found


def choose(setting: Setting, spec: Train, examples: Sequence[Example], *, num_old: int, num_seen: int, seed: int
           ) -> tuple[list[int], np.ndarray | None]:
    """Places of the rows that stay, and the finished model's answers to them (None: none are stored)."""
    keep, model = spec.keep, setting.model
    assert keep is not None
    progress = Silent() if setting.progress is None else setting.progress
    losses = margins = np.zeros(len(examples), dtype=np.float32)
    rows: list[Row] = model.rows(examples)
    with_classes = model.task.type in ("classify", "image")
    answers = None
    if keep.reads_losses and rows and model.task.type == "tag":
        losses, margins = of_tags(rows, predict.tag_logits(model, rows, progress=progress, what="rows to keep"))
    elif keep.reads_losses and rows and with_classes:
        answers = predict.logits(model, rows, progress=progress, what="rows to keep")
        losses, margins = of_classes(model, rows, answers)
    picked = [int(at) for at in keep.choose(Candidates(
        ids=[example.id for example in examples], num_old=num_old, num_seen=num_seen,
        classes=classes_of(model, examples), losses=losses, margins=margins, seed=seed))]
    if not (keep.logits and with_classes):
        return picked, None
    if answers is not None:
        return picked, answers[picked]
    return picked, predict.logits(model, [rows[at] for at in picked], progress=progress, what="kept rows")


def classes_of(model: LabelModel, examples: Sequence[Example]) -> np.ndarray:
    """int64 [rows]: place of each row's first class (or tag), -1 where it has none; 0 for embed."""
    if model.task.type == "embed":
        return np.zeros(len(examples), dtype=np.int64)
    names = {name.partition("-")[2] if model.task.type == "tag" else name: at for at, name in enumerate(model.labels)}
    return np.array([min((names[name] for name in names_of(example)), default=-1) for example in examples],
                    dtype=np.int64)


def of_classes(model: LabelModel, rows: Sequence[Row], answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss in nats and margin of each row (see `Candidates`), from logits [rows, classes]."""
    if model.task.multi_label:
        signed = np.where(np.stack([row.target for row in rows]) > 0.5, answers, -answers)
        return np.logaddexp(0, -signed).mean(-1), np.abs(answers).min(-1)
    right = np.array([row.target for row in rows], dtype=np.int64)
    return _losses(answers, right), _margins(answers)


def of_tags(rows: Sequence[Row], answers: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss over the tokens of each row, and the margin of its least certain token; logits [tokens, tags] a row."""
    losses, margins = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
    for at, (row, values) in enumerate(zip(rows, answers)):
        carried = row.target != IGNORED
        if carried.any():
            losses[at] = _losses(values[carried], row.target[carried]).mean()
            margins[at] = _margins(values[carried]).min()
    return losses, margins


def _losses(answers: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(answers, axis=-1) - answers[np.arange(len(right)), right]


def _margins(answers: np.ndarray) -> np.ndarray:
    if answers.shape[-1] < 2:
        return np.zeros(len(answers), dtype=np.float32)
    top = np.sort(answers, axis=-1)[:, -2:]
    return top[:, 1] - top[:, 0]
