"""Spelling noise (Belinkov & Bisk 2018, "Synthetic and natural noise both break neural machine translation")."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS
from luthier.train.augments._words import change_words

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "word_noise")
class WordNoise(Spec):
    """Misspells words: two neighbouring letters change places, or one is lost, doubled, or replaced by another letter
    of the text. Knows no keyboard, so it serves any language and script."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    share: float = Field(default=0.1, ge=0, le=1)
    """Probability of each word to get one mistake."""
    shortest: int = Field(default=4, ge=2)
    """Words with fewer letters are left alone."""

    def apply(self, data: str, rng: np.random.Generator) -> str:
        letters = [sign for sign in data if sign.isalpha()]

        def misspell(word: str) -> str:
            kind, at, drawn = int(rng.integers(4)), int(rng.integers(1, len(word))) if len(word) > 1 else 0, \
                int(rng.integers(len(letters)))
            if len(word) < self.shortest:
                return word
            if kind == 0:  # the first letter stays: people rarely get it wrong
                at = min(at, len(word) - 2)
                return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            if kind == 1:
                return word[:at] + word[at + 1 :]
            if kind == 2:
                return word[: at + 1] + word[at:]
            return word[:at] + letters[drawn] + word[at + 1 :]

        return change_words(data, self.share, rng, misspell)
