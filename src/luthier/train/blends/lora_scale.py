"""LoRA scaling: W + a · (alpha / rank) · B A, the adapter's change of the weights made smaller; all else that trained
(the head of a labelled task) stays as it is.

For an assistant whose training began from the base model this is the same model as `wise`, because the adapter is all
that trained and its product is a straight line from the base. It differs where a head trained beside the adapter (a
labelled task), and where training began from an earlier run: then a = 0 is the base model and not that run.
"""

from __future__ import annotations

from luthier.plugins import register
from luthier.train.blends import BARE, BLENDS, Blending


@register(BLENDS, "lora_scale")
class LoraScale(Blending):
    """The adapter's change of the weights made smaller; for runs that trained with LoRA."""

    def begin(self) -> str:
        return BARE
