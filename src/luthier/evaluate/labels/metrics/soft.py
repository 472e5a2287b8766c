"""Measures of probabilities: ranking (ROC-AUC, average precision), log loss, Brier score, calibration, top k."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from luthier.evaluate.labels.metrics import LABEL_METRICS, Classes, LabelMetric, Sets, Shape
from luthier.plugins import register

CLASSIFY: tuple[Shape, ...] = ("single", "multi")


class _Area(LabelMetric):
    """An area under a curve, one class against the rest."""

    average: ClassVar[str] = "macro"
    curve: ClassVar[str] = "roc_auc"

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        from luthier.evaluate.labels import curves

        area = getattr(curves, self.curve)
        right = answers.one_hot()
        if isinstance(answers, Classes) and right.shape[1] == 2:
            found = area(right[:, 1], answers.probabilities[:, 1])
        else:
            found = curves.over_classes(right, answers.probabilities, area, self.average)
        return None if found is None else draws.linear(found.value, found.effects)


@register(LABEL_METRICS, "roc_auc")
class RocAuc(_Area):
    """ROC-AUC, one class against the rest, averaged over the classes; with two classes, of the second."""

    label: ClassVar[str] = "ROC-AUC"
    explanation: ClassVar[str] = ("Chance that a row of a class gets a higher probability for it than a row of another "
                                  "class: 0.5 is guessing, 1 is perfect, whatever the threshold.")
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY


@register(LABEL_METRICS, "weighted_roc_auc")
class WeightedRocAuc(_Area):
    """ROC-AUC, one class against the rest, weighted by how often each class is right."""

    label: ClassVar[str] = "ROC-AUC, weighted"
    explanation: ClassVar[str] = "As ROC-AUC, with common classes weighing more."
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    average: ClassVar[str] = "weighted"


@register(LABEL_METRICS, "pr_auc")
class PrAuc(_Area):
    """Average precision (area under precision and recall), one class against the rest, averaged over the classes."""

    label: ClassVar[str] = "PR-AUC (average precision)"
    explanation: ClassVar[str] = ("Mean precision over all thresholds: unlike ROC-AUC it is low where a rare class is "
                                  "drowned in false alarms.")
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    curve: ClassVar[str] = "average_precision"


@register(LABEL_METRICS, "log_loss")
class LogLoss(LabelMetric):
    """Mean negative log probability of the right class, nats; for several labels a row, of each label's yes or no."""

    label: ClassVar[str] = "Log loss"
    explanation: ClassVar[str] = "How surprised the system is by the right answers: being sure and wrong costs most."
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "nats"
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        return draws.mean(log_losses(answers))._replace(yes_no=False)


@register(LABEL_METRICS, "brier")
class Brier(LabelMetric):
    """Mean squared distance of the probabilities from the truth (Brier 1950), as scikit-learn scales it.

    Two classes: of the second one; more: summed over the classes; several labels a row: mean over the labels.
    """

    label: ClassVar[str] = "Brier score"
    explanation: ClassVar[str] = "Squared distance of the probabilities from the truth: 0 is perfect."
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "ratio"
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        off = (answers.probabilities - answers.one_hot()) ** 2
        if isinstance(answers, Sets):
            return draws.mean(off.mean(1))
        return draws.mean(off.sum(1) / 2 if off.shape[1] == 2 else off.sum(1))._replace(yes_no=False)


class _CalibrationError(LabelMetric):
    """Expected calibration error over bins of confidence."""

    kind_of_bins: ClassVar[Any] = "equal_width"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    fits: ClassVar[tuple[Shape, ...]] = CLASSIFY
    bins: int = Field(default=15, ge=2, le=1000)
    """Number of bins of confidence."""

    @property
    def name(self) -> str:
        return self.kind if self.bins == 15 else f"{self.kind}@{self.bins}"

    def estimate(self, answers: Classes | Sets, draws: Any) -> Any:
        import numpy as np

        from luthier.evaluate.labels.calibrate import bin_of, decisions
        from luthier.evaluate.labels.intervals import Estimate

        confidence, hits = decisions(answers.right, answers.probabilities)
        per_row = len(confidence) // draws.n
        gaps = np.zeros((draws.n, self.bins))
        rows = np.repeat(np.arange(draws.n), per_row)
        np.add.at(gaps, (rows, bin_of(confidence, self.bins, self.kind_of_bins)), (confidence - hits) / per_row)
        found = draws.sums(np.concatenate([gaps, np.ones((draws.n, 1))], 1))
        of_draws = np.abs(found.draws[:, :-1]).sum(1) / np.maximum(found.draws[:, -1], 1)
        return Estimate(float(np.abs(found.total[:-1]).sum() / draws.n), of_draws, draws.n, centred=True, floor=0.0)


@register(LABEL_METRICS, "ece")
class ECE(_CalibrationError):
    """Expected calibration error over bins of equal width (Guo et al. 2017)."""

    label: ClassVar[str] = "Calibration error (ECE)"
    explanation: ClassVar[str] = ("How far the stated confidence lies from the share that is right: 0.05 means that "
                                  "answers given with 90 % confidence are right about 85 or 95 times in 100.")


@register(LABEL_METRICS, "ece_equal_mass")
class EqualMassECE(_CalibrationError):
    """Expected calibration error over bins that hold equally many decisions (Nixon et al. 2019)."""

    label: ClassVar[str] = "Calibration error, equal bins"
    explanation: ClassVar[str] = "As the calibration error, over bins that hold equally many answers."
    kind_of_bins: ClassVar[Any] = "equal_mass"


@register(LABEL_METRICS, "top_k_accuracy")
class TopK(LabelMetric):
    """Share of rows whose right class is among the k likeliest; of equal probabilities the first classes count."""

    label: ClassVar[str] = "Among the likeliest 3"
    explanation: ClassVar[str] = "Share of the rows whose right class is among the likeliest three."
    fits: ClassVar[tuple[Shape, ...]] = ("single",)
    k: int = Field(default=3, ge=1)
    """How many classes count."""

    @property
    def name(self) -> str:
        return self.kind if self.k == 3 else f"{self.kind}@{self.k}"

    def estimate(self, answers: Classes, draws: Any) -> Any:
        import numpy as np

        if answers.probabilities.shape[1] <= self.k:
            return None  # always 1
        own = answers.probabilities[np.arange(draws.n), answers.right][:, None]
        before = np.arange(answers.probabilities.shape[1]) < answers.right[:, None]
        ahead = (answers.probabilities > own) | ((answers.probabilities == own) & before)
        return draws.mean(ahead.sum(1) < self.k)


def log_losses(answers: Classes | Sets) -> Any:
    """float64 [n]: nats per row, probabilities kept 2.2e-16 away from 0 and 1 as in scikit-learn."""
    import numpy as np

    tiny = np.finfo(np.float64).eps
    p = np.clip(answers.probabilities, tiny, 1 - tiny)
    if isinstance(answers, Sets):
        return -np.where(answers.right, np.log(p), np.log1p(-p)).mean(1)
    return -np.log(p[np.arange(len(p)), answers.right])
