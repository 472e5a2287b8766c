"""L2-SP (Li et al. 2018): a pull towards the weights that training started from.

Differs for adapters: A·c and B/c are the same update, so the penalty is on the product. With LoRA it is
strength / 2 · sum over layers of ||alpha / rank · B A||², the squared distance of the effective weights from the
base's, computed in rank x rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

        pairs, free = _split(setting.model)
        starts = [parameter.detach().float().clone() for parameter in free]

        def penalty() -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float32)
            for scale, a_RI, b_OR in pairs:
                a, b = a_RI.float(), b_OR.float()
                total = total + scale**2 * ((b.t() @ b) * (a @ a.t())).sum().cpu()
            for parameter, start in zip(free, starts):
                total = total + (parameter.float() - start).square().sum().cpu()
            return self.strength / 2 * total

        return penalty


def _split(model: Any) -> tuple[list[tuple[float, torch.Tensor, torch.Tensor]], list[torch.Tensor]]:
    """LoRA pairs with their scale, and the parameters that train by themselves."""
    pairs, paired = [], set()
    for inner in model.module.modules():
        if hasattr(inner, "lora_A") and hasattr(inner, "scaling"):
            for name in inner.lora_A:
                a, b = inner.lora_A[name].weight, inner.lora_B[name].weight
                pairs.append((float(inner.scaling[name]), a, b))
                paired |= {id(a), id(b)}
    return pairs, [p for p in model.module.parameters() if p.requires_grad and id(p) not in paired]
