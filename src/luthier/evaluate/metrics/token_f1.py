"""Token F1 of SQuAD (Rajpurkar et al. 2016): words shared by the answer and the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction, answered
from luthier.evaluate.text import normalise
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "token_f1")
class TokenF1(Metric):
    """Harmonic mean of word precision and word recall against the reference answer, 0 to 1."""

    label: ClassVar[str] = "Word overlap (token F1)"
    explanation: ClassVar[str] = ("How many words the answer shares with the reference answer: 1 means the same words, "
                                  "0 means none. A rightly refused unanswerable question counts 1.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        language = context.task.language
        return answered(examples, predictions, context,
                        lambda pairs: [token_f1(reference, answer, language) for reference, answer in pairs])


def token_f1(reference: str, answer: str, language: str = "en") -> float:
    """As `compute_f1` of SQuAD's evaluate-v2.0.py, after `text.normalise`."""
    gold, said = normalise(reference, language).split(), normalise(answer, language).split()
    if not gold or not said:
        return float(gold == said)
    common = sum((Counter(gold) & Counter(said)).values())
    return 2 * common / (len(gold) + len(said))
