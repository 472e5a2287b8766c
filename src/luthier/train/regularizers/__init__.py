"""The regularizer seam: what is added to the loss so that a model keeps what it knows. One file each.

Three ways to take part, any of which a kind may leave out:

- `bind` gives a penalty on the weights, added once per update (EWC, L2-SP);
- `teach` says what another model answers to train rows, and `told` turns that, with the model's own answers to the
  same rows, into a loss (distillation, stored logits);
- `remember` returns tensors that are saved with the finished model, for the next training that begins from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from luthier.plugins import Seam
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    import torch

    from luthier.progress import Progress
    from luthier.task import Task
    from luthier.train.past import Past
    from luthier.types import Example

    Penalty = Callable[[], torch.Tensor]
    """Called once per update, before its task gradients: a scalar in nats, differentiable in what trains."""

REGULARIZERS = Seam("regularizer", package="luthier.train.regularizers")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a regularizer may read."""

    model: Any
    """Model (assistant, completion) or LabelModel, with the weights that training begins from, and at `remember` those
    that it ended with."""
    rows: Sequence[Any]
    """Rendered (assistant, completion) or Row (labelled tasks): what is trained on, replayed rows not among them."""
    replayed: Sequence[Any] = ()
    """The replayed ones."""
    examples: Sequence[Example] = ()
    """What `rows`, then `replayed` were made from (labelled tasks): rows may hold finished features only, and another
    model reads in its own way."""
    objective: Any = None
    """(batch, denominator) → the task's loss."""
    passes: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    """Rows as the batches that `objective` takes, without augmentation."""
    past: Past | None = None
    """What the model knew before; None where training begins from a base model."""
    columns: Callable[[Any], np.ndarray | None] = lambda row: None
    """Which outputs take part in a row's loss (labelled tasks): int64 [some classes], None for all of them."""
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Places of each named set of classes that has a loss of its own (labelled tasks); empty where none has."""
    root: Path = field(default_factory=Path.cwd)
    """The project folder that paths start from."""
    learning_rate: float | None = None
    """Peak learning rate of the run, where it is known."""
    progress: Progress | None = None
    seed: int = 0


class Regularizer(Spec):
    """Base of every regularizer. `strength = 0` must equal its absence."""

    needs_past: ClassVar[bool] = False
    """It means something only where training begins from a model that has learned before; a first training goes on
    without it, and says so."""

    def refuse_misfits(self, task: Task) -> None:
        """SpecError for a setting that the task cannot honour; asked before anything is computed."""
        return None

    def bind(self, setting: Setting) -> Penalty | None:
        """Before training: the penalty on the weights, or None."""
        return None

    def teach(self, setting: Setting) -> Mapping[str, np.ndarray]:
        """Before training: row id → a teacher's logits float32 [classes], NaN where it knows nothing of a class; rows
        that are not named have no teacher. Tasks classify and image only."""
        return {}

    def told(self, logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, multi_label: bool = False,
             parts: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """The loss summed over rows, in nats: logits and teacher [rows, classes] (NaN as in `teach`, whole rows of NaN
        have no teacher), weights [rows]. It is divided by the update's whole weight, as the task's loss is.

        multi_label: each class is a yes or no of its own. parts: places int64 of each set of classes that has a loss
        of its own (`Setting.parts`)."""
        raise NotImplementedError(f"regularizer '{self.kind}' teaches, so it must define told()")

    @classmethod
    def teaches(cls) -> bool:
        """Whether this kind adds to the loss by way of a teacher's answers."""
        return cls.teach is not Regularizer.teach

    def inputs(self, root: Path) -> Mapping[str, str]:
        """Hashes of the files that it reads, by name: part of what a run depends on."""
        return {}

    def remember(self, setting: Setting) -> Mapping[str, torch.Tensor]:
        """After training: what to save with the model, by any names; `past.kept[kind]` gives it back."""
        return {}
