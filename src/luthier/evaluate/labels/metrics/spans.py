"""Measures of tags: a piece counts as found when its start, end and tag are all right (CoNLL, seqeval)."""

from __future__ import annotations

from typing import Any, ClassVar

from luthier.evaluate.labels.metrics import LABEL_METRICS, LabelMetric, Shape, Spans
from luthier.evaluate.labels.metrics.hard import _Averaged
from luthier.plugins import register


@register(LABEL_METRICS, "span_f1")
class SpanF1(_Averaged):
    """F1 over all marked pieces together (micro)."""

    label: ClassVar[str] = "Span F1"
    explanation: ClassVar[str] = ("Balance of precision and recall over the marked pieces; a piece counts only when "
                                  "its start, its end and its tag are all right.")
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)
    which, average = "f1", "micro"


@register(LABEL_METRICS, "macro_span_f1")
class MacroSpanF1(_Averaged):
    """Mean span F1 of the kinds of tag, each counting alike."""

    label: ClassVar[str] = "Span F1, macro"
    explanation: ClassVar[str] = "Span F1 per kind of tag, averaged, so that rare kinds count as much as common ones."
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)
    which, average = "f1", "macro"


@register(LABEL_METRICS, "weighted_span_f1")
class WeightedSpanF1(_Averaged):
    """Mean span F1 of the kinds of tag, weighted by how often each occurs."""

    label: ClassVar[str] = "Span F1, weighted"
    explanation: ClassVar[str] = "Span F1 per kind of tag, weighted by how common the kind is."
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)
    which, average = "f1", "weighted"


@register(LABEL_METRICS, "span_precision")
class SpanPrecision(_Averaged):
    """Share of the marked pieces that are right."""

    label: ClassVar[str] = "Span precision"
    explanation: ClassVar[str] = "Of the pieces that the system marked, the share that is exactly right."
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)
    which, average = "precision", "micro"


@register(LABEL_METRICS, "span_recall")
class SpanRecall(_Averaged):
    """Share of the right pieces that were marked."""

    label: ClassVar[str] = "Span recall"
    explanation: ClassVar[str] = "Of the pieces that there are, the share that the system marked exactly."
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)
    which, average = "recall", "micro"


@register(LABEL_METRICS, "token_accuracy")
class TokenAccuracy(LabelMetric):
    """Share of words that carry the right tag, or rightly none."""

    label: ClassVar[str] = "Word accuracy"
    explanation: ClassVar[str] = "Share of the words with the right tag; high wherever most words carry none."
    fits: ClassVar[tuple[Shape, ...]] = ("tag",)

    def estimate(self, answers: Spans, draws: Any) -> Any:
        from luthier.evaluate.labels.counts import ratio

        return draws.mean(ratio(answers.words_right, answers.words.astype(float)), answers.words)
