"""After a labelled training: choose the rows that are stored with the model, and let the regularizers remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.adapt import predict
from luthier.train.keeps import Candidates
from luthier.train.regularizers import Setting
from luthier.types import Example

if TYPE_CHECKING:
    from luthier.train.base import Train


def remember(setting: Setting, spec: Train, *, examples: Sequence[Example]) -> dict[str, Any]:
    """The arguments of `luthier.train.past.save_past`. `examples` are the rows that were just learned, in the order of
    `setting.rows`; those that were replayed come out of the store and compete for it again."""
    kept = {one.kind: one.remember(setting) for one in spec.regularizers}
    found: dict[str, Any] = {"labels": setting.model.labels, "kept": kept}
    seen = setting.past.facts.get("seen", 0) if setting.past is not None else 0
    found["facts"] = {"seen": seen + len(examples)}
    if spec.keep is None:
        return found
    old = list(setting.past.rows) if setting.past is not None else []
    rows = [*old, *(example for example in examples if example.labelled)]
    chosen, answers = choose(setting, spec, rows, num_old=len(old), num_seen=seen + len(examples))
    found["rows"] = [rows[at] for at in chosen]
    if spec.keep.logits and answers is not None:
        found["logits"] = {rows[at].id: answers[at] for at in chosen}
    return found


def choose(setting: Setting, spec: Train, examples: Sequence[Example], *, num_old: int, num_seen: int
           ) -> tuple[list[int], np.ndarray | None]:
    """Places of the rows that stay, and the finished model's answers to all rows (None: no classes)."""
    assert spec.keep is not None
    model, task = setting.model, setting.model.task
    classes = np.zeros(len(examples), dtype=np.int64)
    losses = margins = np.zeros(len(examples), dtype=np.float32)
    answers = None
    if task.type in ("classify", "image") and examples:
        rows = model.rows(examples)
        answers = predict.logits(model, rows, progress=setting.progress, what="rows to keep") \
            if setting.progress is not None else predict.logits(model, rows)
        if task.multi_label:
            targets = np.stack([row.target for row in rows])
            signed = np.where(targets > 0.5, answers, -answers)
            losses, margins = np.logaddexp(0, -signed).mean(-1), np.abs(answers).min(-1)
            classes = targets.argmax(-1).astype(np.int64)
        else:
            classes = np.array([row.target for row in rows], dtype=np.int64)
            losses = np.logaddexp.reduce(answers, axis=-1) - answers[np.arange(len(rows)), classes]
            top = np.sort(answers, axis=-1)[:, -2:]
            margins = top[:, 1] - top[:, 0] if answers.shape[1] > 1 else np.zeros(len(rows), dtype=np.float32)
    picked = spec.keep.choose(Candidates(ids=[example.id for example in examples], num_old=num_old, num_seen=num_seen,
                                         classes=classes, losses=losses, margins=margins, seed=setting.seed))
    return [int(at) for at in picked], answers
