"""Groundedness: how much of what an answer adds is found in the source.

K-precision (Adlakha et al. 2024, "Evaluating Correctness and Faithfulness of Instruction-Following Models for
Question Answering": the share of the answer's words found in the passage, the measure that agreed best with people).
Where we differ: function words are left out, words are stemmed, numbers are compared whole, and words that already
stand in the question carry no evidence, so that echoing the question earns nothing:

    A = content words of the answer that are not in the question (with repetition)
    groundedness = share of A that occurs in the source

A refusal, or an answer that adds no content, claims nothing: it has no value and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.evaluate.text import content_words
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "groundedness")
class Groundedness(Metric):
    """Share of an answer's own content words that occur in the passage the question was made from, 0 to 1.

    Unanswerable questions and the user's own pairs without a source document have no value.
    """

    label: ClassVar[str] = "Groundedness in the source"
    explanation: ClassVar[str] = ("Share of the content words and numbers in the answer that occur in the passage the "
                                  "question was made from: low values point to invented content.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        found: list[float | None] = []
        for example, prediction in zip(examples, predictions, strict=True):
            passages = context.sources.get(example.id, ())
            skip = "unanswerable" in example.tags or not passages or context.refused(prediction)
            source = "\n".join(passage.headed for passage in passages)
            found.append(None if skip else grounded_share(prediction.uncited or "", source, example.question,
                                                          context.task.language))
        return found


def grounded_share(answer: str, source: str, question: str, language: str = "en") -> float | None:
    """The formula above; None when the answer adds no content to the question."""
    asked = set(content_words(question, language))
    added = [word for word in content_words(answer, language) if word not in asked]
    if not added:
        return None
    held = set(content_words(source, language))
    return sum(word in held for word in added) / len(added)
