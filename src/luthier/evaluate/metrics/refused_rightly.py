"""Refusal of unanswerable questions: the share that was rightly refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "refused_rightly")
class RefusedRightly(Metric):
    """1 when an unanswerable question is refused, 0 when it is answered; answerable questions have no value."""

    label: ClassVar[str] = "Rightly refused"
    explanation: ClassVar[str] = ("Share of the questions that the documents cannot answer where the system said so "
                                  "instead of inventing something.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        return [float(context.refused(prediction)) if "unanswerable" in example.tags and prediction.text is not None
                else None for example, prediction in zip(examples, predictions, strict=True)]
