"""Answer-token loss: how surprised a system is by the reference answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "answer_loss")
class AnswerLoss(Metric):
    """Mean loss in nats per token of the reference answer (stop token included), weighted by tokens over examples.

    The prompt is the system's own: with retrieval, the retrieved passages stand in front of the question.
    """

    label: ClassVar[str] = "Answer loss"
    explanation: ClassVar[str] = ("How surprised the model is by the reference answer, in nats per token: lower means "
                                  "that the right answer is more likely to it.")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    needs: ClassVar[Literal["answers", "loss"]] = "loss"
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "nats"

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        return [None if p.loss_sum is None or not p.loss_tokens else p.loss_sum / p.loss_tokens for p in predictions]

    def weights(self, predictions: Sequence[Prediction]) -> list[float]:
        return [float(prediction.loss_tokens) for prediction in predictions]
