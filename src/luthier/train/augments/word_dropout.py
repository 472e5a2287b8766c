"""Word dropout (Iyyer et al. 2015; the random deletion of EDA, Wei & Zou 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "word_dropout")
class WordDropout(Spec):
    """Leaves out words at random, so that no single word decides alone. One word always stays."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    share: float = Field(default=0.1, ge=0, lt=1)
    """Probability of each word to be left out."""

    def apply(self, data: str, rng: np.random.Generator) -> str:
        words = data.split()
        if len(words) < 2:
            return data
        kept = rng.random(len(words)) >= self.share
        if kept.all():
            return data  # with its own spacing
        if not kept.any():
            kept[int(rng.integers(len(words)))] = True
        return " ".join(word for word, stays in zip(words, kept) if stays)
