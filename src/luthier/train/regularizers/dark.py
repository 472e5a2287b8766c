"""Dark experience replay (Buzzega et al. 2020): replayed rows keep the logits that they had when they were stored.

Differs: the stored logits are those of the finished model, over the classes that it knew, not those of some moment
within training; and since replayed rows bring their labels too, this is the paper's DER++.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.train.regularizers import REGULARIZERS, Regularizer, Setting

if TYPE_CHECKING:
    import numpy as np
    import torch


@register(REGULARIZERS, "dark")
class DarkReplay(Regularizer):
    """Holds the answers to replayed rows at the logits that were stored with them. Needs train.replay with source past,
    and a model that was trained with train.keep."""

    needs_past: ClassVar[bool] = True

    strength: float = Field(default=0.5, ge=0)
    """Weight of the mean squared difference of the logits over the classes that the old model knew; 0 is off. It is the
    paper's alpha where half of every update is replayed (train.replay.share 0.5)."""

    def teach(self, setting: Setting) -> Mapping[str, np.ndarray]:
        """The stored logits of the replayed rows. SpecError where there are none."""
        import numpy as np

        from luthier.adapt.grow import spread_outputs

        if self.strength == 0 or setting.past is None:
            return {}
        past = setting.past
        if not setting.replayed:
            why = "the model that training begins from kept no rows; train it with train.keep" if not past.rows else \
                "none of the stored rows is mixed in; set train.replay to {source: past, share: 0.1}"
            raise SpecError(f"train.regularizers: 'dark' learns from replayed rows, and {why}")
        stored = [row.id for row in setting.replayed if row.id in past.logits]
        if not stored:
            raise SpecError("train.regularizers: 'dark' needs the logits of replayed rows, and the model that training "
                            "begins from kept rows without them; train it with train.keep.logits: true")
        values = spread_outputs(np.stack([past.logits[id] for id in stored]), past.labels, setting.model.labels)
        return dict(zip(stored, values))

    def told(self, logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, multi_label: bool = False,
             parts: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """strength × the mean over known classes of (logit - stored logit)², summed over weighted rows."""
        known = ~teacher.isnan()
        apart = (logits.float() - teacher.masked_fill(~known, 0.0)) * known
        return self.strength * (apart.square().sum(-1) / known.sum(-1).clamp_min(1) * weights).sum()
