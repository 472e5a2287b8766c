"""The seam of measures for labelled tasks: from what a system said about the test rows to an estimate on all draws.

Families, one file each: `hard` (decisions), `soft` (probabilities), `spans` (tags), `ranks` (embeddings).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from luthier.plugins import Seam
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np

    from luthier.evaluate.labels.counts import Counts
    from luthier.evaluate.labels.intervals import Estimate, Replicates

LABEL_METRICS = Seam("label metric", package="luthier.evaluate.labels.metrics")
Shape = Literal["single", "multi", "tag", "embed"]
"""single: one class a row (classify, image); multi: any number of classes; tag: spans; embed: ranked texts."""


@dataclass(frozen=True, eq=False)
class Classes:
    """What a system said where each row has one class."""

    right: np.ndarray
    """int64 [n]: index of the right class."""
    probabilities: np.ndarray
    """float64 [n, classes]; the decision is the likeliest class, the first of equals."""
    shape: ClassVar[Shape] = "single"

    @property
    def said(self) -> np.ndarray:
        return self.probabilities.argmax(1)

    def one_hot(self) -> np.ndarray:
        import numpy as np

        return self.right[:, None] == np.arange(self.probabilities.shape[1])


@dataclass(frozen=True, eq=False)
class Sets:
    """What a system said where a row may have several classes, or none."""

    right: np.ndarray
    """bool [n, classes]."""
    probabilities: np.ndarray
    """float64 [n, classes]; a label is given where its probability reaches the threshold."""
    thresholds: Any = 0.5
    """One number, or [classes]."""
    shape: ClassVar[Shape] = "multi"

    @property
    def said(self) -> np.ndarray:
        return self.probabilities >= self.thresholds

    def one_hot(self) -> np.ndarray:
        return self.right


@dataclass(frozen=True, eq=False)
class Spans:
    """Marked pieces of texts, counted per row and kind of tag."""

    hit: np.ndarray
    """int64 [n, kinds]: pieces with the right start, end and tag."""
    right: np.ndarray
    """int64 [n, kinds]: pieces that there are."""
    said: np.ndarray
    """int64 [n, kinds]: pieces that the system gave."""
    words: np.ndarray
    """int64 [n]: words of each text."""
    words_right: np.ndarray
    """int64 [n]: words with the right tag, or rightly without one."""
    shape: ClassVar[Shape] = "tag"


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the matching texts of each query came."""

    places: tuple[np.ndarray, ...]
    """Per query: 0-based places of its matching texts among all candidates, ascending, int64."""
    shape: ClassVar[Shape] = "embed"


Answers = Classes | Sets | Spans | Ranks


class LabelMetric(Spec):
    """Base of every measure of a labelled task."""

    label: ClassVar[str] = ""
    """Name for people."""
    explanation: ClassVar[str] = ""
    """One sentence for a stranger, shown in the report."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "share"
    """share: 0 to 1; nats: mean natural-log loss; ratio: -1 to 1."""
    fits: ClassVar[tuple[Shape, ...]] = ()
    """Shapes of answers that it can be computed from."""

    @property
    def name(self) -> str:
        """Its key in the report: the kind, with its parameter where that is not the default."""
        return self.kind

    def estimate(self, answers: Any, draws: Replicates) -> Estimate | None:
        """The value and its draws; None where it is undefined, such as an AUC with one class only."""
        raise NotImplementedError(f"label metric '{self.kind}' must define estimate()")


def fitting(shape: Shape) -> tuple[LabelMetric, ...]:
    """Every registered measure that fits, with its default settings, in the order of the report."""
    found = [cls() for cls in LABEL_METRICS.kinds().values() if issubclass(cls, LabelMetric) and shape in cls.fits]
    return tuple(sorted(found, key=lambda metric: (ORDER.get(metric.kind, len(ORDER)), metric.kind)))


ORDER: dict[str, int] = {kind: place for place, kind in enumerate((
    "accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "macro_precision",
    "micro_precision", "weighted_precision", "macro_recall", "micro_recall", "weighted_recall", "mcc", "hamming_loss",
    "top_k_accuracy", "roc_auc", "weighted_roc_auc", "pr_auc", "log_loss", "brier", "ece", "ece_equal_mass",
    "span_f1", "macro_span_f1", "weighted_span_f1", "span_precision", "span_recall", "token_accuracy",
    "ndcg", "mrr", "recall", "map"))}


def counts(answers: Classes | Sets | Spans, draws: Replicates) -> tuple[Counts, Counts]:
    """Hits, right and said by class: over the data [classes], and over each draw [samples, classes]."""
    import numpy as np

    from luthier.evaluate.labels.counts import Counts

    if isinstance(answers, Spans):
        rows = {"hit": answers.hit, "right": answers.right, "said": answers.said}
    else:
        right = answers.one_hot()
        said = answers.said if isinstance(answers, Sets) else answers.said[:, None] == np.arange(right.shape[1])
        rows = {"hit": right & said, "right": right, "said": said}
    found = {name: draws.kept(answers.right if name == "right" else answers, name, lambda one=one: one)
             for name, one in rows.items()}  # the right answers are the same for every system
    return (Counts(*(one.total for one in found.values())), Counts(*(one.draws for one in found.values())))


@dataclass(frozen=True)
class Scored:
    """Everything measured about one system."""

    answers: Answers
    estimates: dict[str, Any] = field(default_factory=dict)
    """Metric name to Estimate."""


def score(answers: Answers, metrics: tuple[LabelMetric, ...], draws: Replicates) -> Scored:
    """Every metric that is defined for these answers."""
    found = {metric.name: one for metric in metrics if (one := metric.estimate(answers, draws)) is not None}
    return Scored(answers, found)
