"""Learning without forgetting (Li & Hoiem 2016): to new rows the model goes on giving the answers that it gave before.

Differs: the distance is T² · KL(teacher_T ‖ student_T) (Hinton et al. 2015), whose gradient towards the model's logits
is the paper's times T², so that `strength` keeps its meaning when the temperature changes; all weights train from
the first update (the paper warms the new head up first); and rows that are replayed are taught too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.train.regularizers import REGULARIZERS, Regularizer, Setting

if TYPE_CHECKING:
    import numpy as np
    import torch


@register(REGULARIZERS, "lwf")
class LearningWithoutForgetting(Regularizer):
    """Distils from the model that training begins from: its answers to the new rows, among the classes that it knew,
    are kept up. Needs no old rows, but helps only where new rows look like old ones.

    Where sets of classes have losses of their own (separate heads), each set that the old model knew is a softmax of
    its own, as in the paper: logits of heads that never competed cannot be compared.
    """

    needs_past: ClassVar[bool] = True

    strength: float = Field(default=1.0, ge=0)
    """Weight of the distance beside the labels' loss, both in nats per row; 0 is off. The paper takes 1."""
    temperature: float = Field(default=2.0, gt=0, le=20)
    """Logits of both sides are divided by this: the higher, the more unlikely classes count."""

    def teach(self, setting: Setting) -> Mapping[str, np.ndarray]:
        """The earlier model's answers to every row, replayed ones too, by id."""
        from luthier.train.regularizers._answers import answers_of

        if self.strength == 0 or setting.past is None:
            return {}
        return answers_of(setting.past.open(), setting, who=self.kind)

    def told(self, logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, multi_label: bool = False,
             parts: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """See `luthier.train.regularizers._answers.divergence`."""
        from luthier.train.regularizers._answers import divergence

        return self.strength * divergence(logits, teacher, weights, temperature=self.temperature,
                                          multi_label=multi_label, parts=parts)
