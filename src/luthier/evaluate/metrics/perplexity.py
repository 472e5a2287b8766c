"""Perplexity of the reference answers: the exponential of the answer-token loss."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from luthier.evaluate.metrics import METRICS
from luthier.evaluate.metrics.answer_loss import AnswerLoss
from luthier.plugins import register


@register(METRICS, "perplexity")
class Perplexity(AnswerLoss):
    """exp(answer loss); per-example values are losses in nats, the reported figure is exp of their weighted mean."""

    label: ClassVar[str] = "Perplexity"
    explanation: ClassVar[str] = ("The answer loss on another scale: among how many equally likely tokens the model "
                                  "hesitates, on average, at each token of the right answer.")
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "ratio"

    def finish(self, mean: Any) -> Any:
        import numpy as np

        return np.exp(mean)
