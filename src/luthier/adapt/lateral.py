"""What a column of a progressive network reads from the older columns' layers (Rusu et al. 2016, equation 2).

U relu(V [α₁ h₁, …, αₖ hₖ]): every older column's layer h is scaled by a number that is learned, all of them are
projected to a few units, and from there to the units of the layer that reads, before its own nonlinearity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

SCALE = 0.1
"""The scales begin between half and one and a half of this: small, as in the paper, so that a new column begins nearly
as one by itself."""


class Lateral(nn.Module):
    """Reads of one layer; there are no biases, since the layer that reads has its own."""

    def __init__(self, widths: Sequence[int], units: int, out: int):
        """`widths` of the older columns' layer, `units` of the projection, `out` of the layer that reads."""
        super().__init__()
        self.scales = nn.Parameter(SCALE * (0.5 + torch.rand(len(widths))))
        self.down = nn.Linear(sum(widths), units, bias=False)
        self.up = nn.Linear(units, out, bias=False)

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Layers [rows, width] of the older columns, in their order: [rows, out]."""
        kind = self.down.weight.dtype
        scaled = torch.cat([scale * layer.to(kind) for scale, layer in zip(self.scales, layers, strict=True)], -1)
        return self.up(torch.relu(self.down(scaled)))
