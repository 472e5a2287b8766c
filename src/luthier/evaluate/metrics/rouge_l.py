"""ROUGE-L (Lin 2004): the longest common subsequence of words, F-measure with beta = 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction, answered
from luthier.evaluate.text import words
from luthier.plugins import register
from luthier.types import Example


@register(METRICS, "rouge_l")
class RougeL(Metric):
    """F-measure of the longest common subsequence of words, 0 to 1.

    Equals Google's `rouge-score` 0.1.2 without stemming on ASCII text; letters beyond ASCII stay part of their words
    here, where `rouge-score` cuts words at them.
    """

    label: ClassVar[str] = "Word order (ROUGE-L)"
    explanation: ClassVar[str] = ("Like word overlap, but the shared words must come in the same order: "
                                  "1 means the same sentence, 0 means nothing shared.")

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        return answered(examples, predictions, context,
                        lambda pairs: [rouge_l(reference, answer) for reference, answer in pairs])


def rouge_l(reference: str, answer: str) -> float:
    gold, said = words(reference), words(answer)
    if not gold or not said:
        return 0.0
    return 2 * longest_common_subsequence(gold, said) / (len(gold) + len(said))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length, by Hyyrö's (2004) bit-parallel recurrence: one machine word of cells at a time instead of one."""
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
