"""L2-SP (Li et al. 2018): a pull towards the weights that training started from.

Differs for adapters: A·c and B/c are the same update, so the penalty is on the product. With LoRA it is
strength / 2 · sum over layers of ||s (B A - B0 A0)||², the squared distance of the effective weights from those that
this training began with (B0 = 0 for a fresh adapter), computed in rank x rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from luthier.plugins import register
from luthier.train.regularizers import REGULARIZERS, Regularizer, Setting

if TYPE_CHECKING:
    import torch

    from luthier.train.regularizers import Penalty


@register(REGULARIZERS, "l2sp")
class L2SP(Regularizer):
    """Keeps the weights near those that training begins from."""

    strength: float = Field(default=0.01, ge=0)
    """Nats per unit of squared distance, halved: 0 is no pull."""

    def bind(self, setting: Setting) -> Penalty:
        import torch

        from luthier.train.regularizers._weights import drifts

        moved = [*drifts(setting.model.module)]

        def penalty() -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float32)
            for drift in moved:
                total = total + drift.squared().cpu()
            return self.strength / 2 * total

        return penalty
