"""Groundedness against what was retrieved: does the answer come from the passages that it cites?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.evaluate.metrics.groundedness import grounded_share
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "retrieved_groundedness")
class RetrievedGroundedness(Metric):
    """`groundedness` against the passages in the prompt, 0 to 1; only systems with retrieval have values."""

    label: ClassVar[str] = "Groundedness in the citations"
    explanation: ClassVar[str] = ("Share of the content words and numbers in the answer that occur in the passages it "
                                  "was given and cites: low values mean it did not keep to them.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        language = context.task.language
        return [
            None if not prediction.passages or context.refused(prediction)
            else grounded_share(prediction.uncited or "", "\n".join(p.headed for p in prediction.passages),
                                example.question, language)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
