"""The head of a labelled task's network: how token features become one vector, and that vector the outputs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.spec import Spec


class Head(Spec):
    """What is put on top of the base model for the tasks classify, tag, embed and image."""

    pooling: Literal["auto", "mean", "cls", "max", "last", "attention"] = "auto"
    """How a text's token vectors become one: their mean, the first token's (`cls`), their maximum, the last token's
    (decoders), or a learned weighting; `auto` follows the model's own files, else `mean`, and `last` for a decoder.
    Images are pooled by their own network."""
    hidden: int = Field(default=0, ge=0)
    """Units of a hidden layer (tanh) between features and outputs; 0 has none."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the features that is set to zero in training."""
    warm_start: bool = True
    """Begin from a logistic regression on the untouched base model's features instead of random numbers (classify and
    image, without a hidden layer): saves epochs, and nothing is unlearned while the head is still wild."""
