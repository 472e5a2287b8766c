"""WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"): θ = (1 - a) · θ₀ + a · θ₁, where θ₀ are the
weights that training began from and θ₁ the trained ones. Old skill returns along the line faster than new skill goes.

With LoRA the line is one of the products, not of the factors: (1 - a) · B₀A₀ + a · B₁A₁, exact and still an adapter.
"""

from __future__ import annotations

from luthier.plugins import register
from luthier.train.blends import BLENDS, Blending


@register(BLENDS, "wise")
class Wise(Blending):
    """Weights between the model that training began from and the trained one (WiSE-FT)."""
