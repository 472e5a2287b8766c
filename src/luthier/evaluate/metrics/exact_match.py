"""Exact match of SQuAD (Rajpurkar et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction, answered
from luthier.evaluate.text import normalise
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "exact_match")
class ExactMatch(Metric):
    """1 when answer and reference are the same words after SQuAD's normalisation, else 0."""

    label: ClassVar[str] = "Exact match"
    explanation: ClassVar[str] = ("Share of answers that equal the reference word for word, apart from case, "
                                  "punctuation and articles. Long answers rarely do.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        language = context.task.language
        return answered(examples, predictions, context, lambda pairs: [
            float(normalise(reference, language) == normalise(answer, language)) for reference, answer in pairs])
