"""Wrong refusals: the share of answerable questions that was refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "refused_wrongly")
class RefusedWrongly(Metric):
    """1 when an answerable question is refused, else 0; unanswerable questions have no value."""

    label: ClassVar[str] = "Wrongly refused"
    explanation: ClassVar[str] = "Share of the answerable questions that the system declined to answer."
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        return [None if "unanswerable" in example.tags or prediction.text is None
                else float(context.refused(prediction))
                for example, prediction in zip(examples, predictions, strict=True)]
