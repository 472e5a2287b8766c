"""Embedding similarity: cosine of answer and reference with the index's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.errors import ModelError
from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction, answered
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "similarity")
class Similarity(Metric):
    """Cosine of the embeddings of answer and reference, -1 to 1; the encoder reads each text's first tokens only."""

    label: ClassVar[str] = "Meaning (embedding similarity)"
    explanation: ClassVar[str] = ("How close the answer's meaning is to the reference answer's, judged by a sentence "
                                  "encoder: 1 means the same meaning. It forgives other words, and also wrong numbers.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        embed = context.embed
        if embed is None:
            raise ModelError("the metric 'similarity' needs an encoder, and none could be opened; "
                             "set index.encoder, or leave the metric out of evaluate.metrics")

        def cosine(pairs: list[tuple[str, str]]) -> list[float]:
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            vectors = dict(zip(texts, embed(texts), strict=True))
            return [float(vectors[reference] @ vectors[answer]) for reference, answer in pairs]

        return answered(examples, predictions, context, cosine)
