"""Measures of decisions: accuracy, precision, recall, F1, Matthews' correlation.

All of them are functions of counts per class, so one matrix product gives them on every bootstrap draw. They equal
scikit-learn's with `zero_division=0` and classes taken from the data.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from luthier.evaluate.labels.metrics import LABEL_METRICS, Classes, LabelMetric, Sets, Shape, counts
from luthier.plugins import register

CLASSIFY: tuple[Shape, ...] = ("single", "multi")


@register(LABEL_METRICS, "accuracy")
class Accuracy(LabelMetric):
    """Share of rows that are answered rightly; with several labels a row, all of its labels must be right."""

    label: ClassVar[str] = "Accuracy"
    explanation: ClassVar[str] = ("Share of the test rows that got the right answer; where a row may have several "
                                  "labels, exactly the right set of them.")
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        hits = answers.said == answers.right
        return draws.mean(hits.all(1) if isinstance(answers, Sets) else hits)


@register(LABEL_METRICS, "balanced_accuracy")
class BalancedAccuracy(LabelMetric):
    """Mean recall of the classes, each counting alike; for several labels a row, of each label's yes and no."""

    label: ClassVar[str] = "Balanced accuracy"
    explanation: ClassVar[str] = "As accuracy, but rare classes count as much as common ones."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        from luthier.evaluate.labels import counts as of
        from luthier.evaluate.labels.intervals import Estimate

        total, each = counts(answers, draws)
        if isinstance(answers, Classes):
            return Estimate(float(of.balanced_accuracy(total)), of.balanced_accuracy(each), draws.n)
        rows = _rows(draws)
        return Estimate(float(of.mean_binary_balanced(total, draws.n)), of.mean_binary_balanced(each, rows), draws.n)


class _Averaged(LabelMetric):
    """Precision, recall or F1 over classes."""

    which: ClassVar[Literal["precision", "recall", "f1"]]
    average: ClassVar[Literal["macro", "micro", "weighted"]]

    def estimate(self, answers: Any, draws: Any) -> Any:
        from luthier.evaluate.labels.counts import averaged
        from luthier.evaluate.labels.intervals import Estimate

        total, each = counts(answers, draws)
        return Estimate(float(averaged(total, self.which, self.average)), averaged(each, self.which, self.average),
                        draws.n)


@register(LABEL_METRICS, "macro_f1")
class MacroF1(_Averaged):
    """Mean F1 of the classes, each counting alike."""

    label: ClassVar[str] = "Macro F1"
    explanation: ClassVar[str] = ("Balance of precision (what is said is true) and recall (what is true is said), "
                                  "averaged over the classes, so that rare classes count as much as common ones.")
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "f1", "macro"


@register(LABEL_METRICS, "micro_f1")
class MicroF1(_Averaged):
    """F1 over all decisions together; with one class a row it equals accuracy."""

    label: ClassVar[str] = "Micro F1"
    explanation: ClassVar[str] = "Balance of precision and recall over all decisions: common classes weigh more."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "f1", "micro"


@register(LABEL_METRICS, "weighted_f1")
class WeightedF1(_Averaged):
    """Mean F1 of the classes, weighted by how often each is right."""

    label: ClassVar[str] = "Weighted F1"
    explanation: ClassVar[str] = "Balance of precision and recall per class, weighted by how common the class is."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "f1", "weighted"


@register(LABEL_METRICS, "macro_precision")
class MacroPrecision(_Averaged):
    """Mean precision of the classes, each counting alike."""

    label: ClassVar[str] = "Macro precision"
    explanation: ClassVar[str] = "When a class is given, how often it is right; averaged over the classes."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "precision", "macro"


@register(LABEL_METRICS, "weighted_precision")
class WeightedPrecision(_Averaged):
    """Mean precision of the classes, weighted by how often each is right."""

    label: ClassVar[str] = "Weighted precision"
    explanation: ClassVar[str] = "When a class is given, how often it is right; weighted by how common the class is."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "precision", "weighted"


@register(LABEL_METRICS, "micro_precision")
class MicroPrecision(_Averaged):
    """Precision over all labels that were given."""

    label: ClassVar[str] = "Micro precision"
    explanation: ClassVar[str] = "Share of all labels given that are right."
    fits: ClassVar[tuple[Shape, ...]] = ("multi",)
    which, average = "precision", "micro"


@register(LABEL_METRICS, "macro_recall")
class MacroRecall(_Averaged):
    """Mean recall of the classes, each counting alike."""

    label: ClassVar[str] = "Macro recall"
    explanation: ClassVar[str] = "How many of a class's rows are found; averaged over the classes."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    which, average = "recall", "macro"


@register(LABEL_METRICS, "weighted_recall")
class WeightedRecall(_Averaged):
    """Mean recall of the classes, weighted by how often each is right."""

    label: ClassVar[str] = "Weighted recall"
    explanation: ClassVar[str] = "How many of a class's rows are found; weighted by how common the class is."
    fits: ClassVar[tuple[Shape, ...]] = ("multi",)
    which, average = "recall", "weighted"


@register(LABEL_METRICS, "micro_recall")
class MicroRecall(_Averaged):
    """Recall over all labels that are right."""

    label: ClassVar[str] = "Micro recall"
    explanation: ClassVar[str] = "Share of all right labels that were given."
    fits: ClassVar[tuple[Shape, ...]] = ("multi",)
    which, average = "recall", "micro"


@register(LABEL_METRICS, "samples_f1")
class SamplesF1(LabelMetric):
    """Mean over the rows of each row's own F1; a row without labels that got none counts 0, as in scikit-learn."""

    label: ClassVar[str] = "F1 per row"
    explanation: ClassVar[str] = "Balance of precision and recall of each row's labels, averaged over the rows."
    fits: ClassVar[tuple[Shape, ...]] = ("multi",)

    def estimate(self, answers: Sets, draws: Any) -> Any:
        from luthier.evaluate.labels.counts import ratio

        said = answers.said
        top = 2.0 * (said & answers.right).sum(1)
        return draws.mean(ratio(top, (said.sum(1) + answers.right.sum(1)).astype(float)))._replace(yes_no=False)


@register(LABEL_METRICS, "hamming_loss")
class HammingLoss(LabelMetric):
    """Share of yes/no decisions, over all rows and labels, that are wrong."""

    label: ClassVar[str] = "Wrong label decisions (Hamming loss)"
    explanation: ClassVar[str] = "Every label of every row is a yes or a no: the share of them that is wrong."
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    fits: ClassVar[tuple[Shape, ...]] = ("multi",)

    def estimate(self, answers: Sets, draws: Any) -> Any:
        return draws.mean((answers.said != answers.right).mean(1))._replace(yes_no=False)


@register(LABEL_METRICS, "mcc")
class MCC(LabelMetric):
    """Matthews' correlation of right and given classes, -1 to 1; for several labels a row, averaged over the labels."""

    label: ClassVar[str] = "Matthews correlation (MCC)"
    explanation: ClassVar[str] = ("Agreement with the right answers beyond chance: 0 is guessing, 1 is perfect, also "
                                  "where some classes are rare.")
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "ratio"
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        from luthier.evaluate.labels import counts as of
        from luthier.evaluate.labels.intervals import Estimate

        total, each = counts(answers, draws)
        of_counts = of.mcc if isinstance(answers, Classes) else of.mean_binary_mcc
        return Estimate(float(of_counts(total, draws.n)), of_counts(each, _rows(draws)), draws.n)


def _rows(draws: Any) -> Any:
    """[samples]: how many rows each draw holds; they differ where whole documents are drawn."""
    import numpy as np

    return draws.kept(draws, "rows", lambda: np.ones(draws.n)).draws[:, 0]
