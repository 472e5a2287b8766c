"""The keep seam: which train rows are stored with a model, for the next training that begins from it. One file each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import Seam
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np

    from luthier.task import Task

KEEPS = Seam("keep", package="luthier.train.keeps")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The rows to choose from: those that were stored before come first, then those that were just learned."""

    ids: Sequence[str]
    num_old: int
    """So many of them were in the store before."""
    num_seen: int
    """Rows that the store was ever offered, these included and the same row each time anew; for a keep of your own."""
    classes: np.ndarray
    """int64 [rows]: each row's class; the first of several, -1 where it has none of them; 0 where the task has none.
    An assistant's rows are told apart by their source."""
    losses: np.ndarray
    """float32 [rows]: the finished model's loss on each, in nats."""
    margins: np.ndarray
    """float32 [rows]: log-odds between the likeliest class and the next (0 is the border); the smallest of a row's
    where several classes may apply, or every token has one; tasks without classes have the negative loss here."""
    seed: int
    """The same for all trainings that a store goes through, so that a row's lot is drawn once."""


class Keep(Spec):
    """Base of every keep."""

    reads_losses: ClassVar[bool] = True
    """Whether `choose` reads losses or margins; an assistant's rows cost a pass through the model each."""

    size: int = Field(default=500, ge=1)
    """Rows in the store, old and new together."""
    logits: bool = True
    """Also keep what the finished model answers to them, for the regularizer `dark` (labelled tasks)."""

    def choose(self, rows: Candidates) -> Sequence[int]:
        """Which of the rows stay: at most `size` places, ascending. Deterministic from `rows.seed`."""
        raise NotImplementedError(f"keep '{self.kind}' must define choose()")

    def refuse_misfits(self, task: Task) -> None:
        """SpecError for a task whose rows it cannot choose among; asked before anything is computed."""
        return None
