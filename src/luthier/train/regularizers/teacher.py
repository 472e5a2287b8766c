"""Distillation from a larger model of the same task (Hinton, Vinyals & Dean 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.errors import ModelError
from luthier.plugins import register
from luthier.train.regularizers import REGULARIZERS, Regularizer, Setting

if TYPE_CHECKING:
    import numpy as np
    import torch

    from luthier.adapt.network import LabelModel

INSIDE = ("", "model", "best")
"""Where a folder may hold the model: itself, a release's version, a training."""


@register(REGULARIZERS, "teacher")
class Teacher(Regularizer):
    """Distils from a model that you name, such as a large one that is too slow to serve: its answers are learned beside
    the labels. Labels are matched by name; what the teacher does not know, it does not teach."""

    model: str = Field(min_length=1)
    """Folder of the teacher, relative to the project folder: a version of a release, or any folder that holds a model
    of a labelled task."""
    strength: float = Field(default=1.0, ge=0)
    """Weight of the teacher beside the labels' loss, both in nats per row; 0 is off."""
    temperature: float = Field(default=2.0, gt=0, le=20)
    """Logits of both sides are divided by this: the higher, the more unlikely classes count."""

    def folder(self, root: Path) -> Path:
        """The folder with the model's files; ModelError where there is none."""
        from luthier.adapt.labelled import NETWORK

        for inside in INSIDE:
            if (found := root / self.model / inside / NETWORK).is_file():
                return found.parent
        if not (root / self.model).is_dir():
            raise ModelError(f"train.regularizers: the teacher's folder '{self.model}' does not exist (looked in "
                             f"{root})")
        raise ModelError(f"train.regularizers: the teacher's folder '{self.model}' holds no model of a labelled task "
                         f"({NETWORK}); name a release's version, such as releases/NAME/1")

    def inputs(self, root: Path) -> Mapping[str, str]:
        """Hash of every file of the teacher."""
        from luthier.models.sources import file_hash

        folder = self.folder(root)
        return {f"teacher/{file.relative_to(folder).as_posix()}": file_hash(file)
                for file in sorted(folder.rglob("*")) if file.is_file()}

    def teach(self, setting: Setting) -> Mapping[str, np.ndarray]:
        """The teacher's answers to every row, replayed ones too, by id."""
        from luthier.train.regularizers._answers import answers_of

        return {} if self.strength == 0 else answers_of(self.open(setting.root), setting, who=self.kind)

    def open(self, root: Path) -> LabelModel:
        """The teacher, in evaluation mode."""
        from luthier.adapt.labelled import load_label_model

        model = load_label_model(self.folder(root))
        if model.task.type == "image":
            model.processor.root = root  # type: ignore[attr-defined]
        return model

    def told(self, logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, multi_label: bool = False,
             parts: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """See `luthier.train.regularizers._answers.divergence`."""
        from luthier.train.regularizers._answers import divergence

        return self.strength * divergence(logits, teacher, weights, temperature=self.temperature,
                                          multi_label=multi_label, parts=parts)
