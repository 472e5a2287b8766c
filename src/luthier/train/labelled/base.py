"""The job of training one labelled model, and what comes out. A strategy varies jobs; `fit_once` does one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.adapt.network import LabelModel
from luthier.progress import Progress
from luthier.store import Cache
from luthier.types import Example

if TYPE_CHECKING:
    import numpy as np

    from luthier.train.base import Train
    from luthier.train.past import Past
    from luthier.train.seams import Watch


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What a row's teacher says, for the loss alpha · L(labels) + (1 - alpha) · T² · KL(teacher_T ‖ student_T) of
    Hinton, Vinyals & Dean (2015), where both sides' logits are divided by T."""

    logits: Mapping[str, np.ndarray]
    """Example id → float32 [classes]; every train row needs one."""
    temperature: float = 2.0
    alpha: float = 0.5
    """Share of the labels; 0 learns from the teacher alone."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pooled features of the untouched base model."""

    fingerprint: str
    """Of the model that made them; a fit with another one does not use them."""
    vectors: Mapping[str, np.ndarray]
    """Example id → float32 [width]."""
    head_only: bool = False
    """The fits leave the backbone as it is, so that these are the finished models' features too."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that one fit needs. Change it with `but`."""

    open: Callable[[int], LabelModel]
    """The base model with a fresh head, for a seed; where training begins from an earlier model, that one with outputs
    for the data's labels."""
    fresh: Callable[[int], LabelModel] | None = None
    """The base model with a fresh head in either case; None: `open` gives it."""
    train: Sequence[Example]
    """Rows with their right answers; an example's `weight` counts in the loss."""
    validation: Sequence[Example]
    """Rows that choose the best weights; may be empty, then the last weights are kept."""
    unlabelled: Sequence[Example] = ()
    """Rows without a right answer, for strategies that use them."""
    spec: Train
    folder: Path
    """Where this fit keeps checkpoint, best weights, contract and logs: of its own for every fit."""
    cache: Cache
    """Features by content."""
    root: Path
    progress: Progress
    watch: Watch | None = None
    seed: int = 0
    soft: Any = None
    """Mapping from example id to probabilities float32 [classes] that stand in for its label (distillation,
    pseudo-labels); None for none."""
    test: Sequence[Example] = ()
    """Only for the contract, which looks for leaks (point 7) and unknown labels (point 8); never scored here."""
    look_for_leaks: bool = True
    """Whether point 7 is checked; folds of rows that were checked together need not be."""
    note: str = ""
    """Name of this fit in logs and progress, such as `fold 2 of 5`."""
    teacher: Teacher | None = None
    """Whose answers are learned beside the labels (distillation)."""
    pool: Pool | None = None
    """Features that were computed once for the rows of several fits; see `luthier.train.labelled.pool`."""
    stop_after: int | None = None
    """Ends after this many updates without changing the learning rate's schedule; None: the spec decides."""
    warm: bool = True
    """Whether the head may begin from a logistic regression; False where it has learned already."""
    warm_labels: Sequence[str] | None = None
    """The labels whose outputs `warm` may set: those that are new where the others have learned already; None for all.
    """
    past: Past | None = None
    """What the model that `open` returns has learned before; None for a base model."""
    replay: Sequence[Example] = ()
    """Past rows that are mixed into every update, at the share of `spec.replay`."""
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Named sets of labels, for losses over some of the classes only (classify, image; one class each)."""
    part_of: Mapping[str, str] = field(default_factory=dict)
    """Example id → name of the labels that take part in its loss, in training and validation; the others have all."""
    check_labels: bool = True
    """Whether point 8 of the contract is checked here: every label of the model has a train row. A stage of a sequence
    has the rows of its own task."""
    protect: bool = True
    """Whether regularizers act on this fit; they remember something for the next one either way."""
    keep: bool = False
    """Leave the outcome in the folder, and take it from there at the next call: one of several fits of a strategy is
    then not run again after a kill."""

    def but(self, **changes: Any) -> Job:
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The best model of one fit, or of a whole strategy."""

    model: LabelModel
    value: float | None
    """The task's metric on the validation rows; None without validation."""
    loss: float | None
    """Mean validation loss in nats, without smoothing and class weights."""
    logits: np.ndarray | None = None
    """float32 [validation rows, classes], in the order of `job.validation`; None for tag and embed."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Steps, seconds, learning rate and the like, and `gap`: the same metric on train rows."""
    artifacts: dict[str, Any] = field(default_factory=dict)
    """What a strategy wants to be written beside the model: file name → JSON data."""
    memory: Mapping[str, Any] | None = None
    """What is carried on to the next training (the arguments of `luthier.train.past.save_past`)."""
    scratch: tuple[Path, ...] = ()
    """Files that are of no use once the model is saved, such as the weights of folds."""


Fit = Callable[[Job], Fitted]
