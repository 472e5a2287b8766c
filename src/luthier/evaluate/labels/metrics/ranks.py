"""Measures of search: where the matching texts of a query come among all candidates (Manning et al. 2008, ch. 8)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from luthier.evaluate.labels.metrics import LABEL_METRICS, LabelMetric, Ranks, Shape
from luthier.plugins import register

DEPTH = 10


class _AtK(LabelMetric):
    """A mean over queries of a figure of the first k places."""

    fits: ClassVar[tuple[Shape, ...]] = ("embed",)
    k: int = Field(default=DEPTH, ge=1)
    """Places looked at."""

    @property
    def name(self) -> str:
        return self.kind if self.k == DEPTH else f"{self.kind}@{self.k}"

    def estimate(self, answers: Ranks, draws: Any) -> Any:
        from luthier.evaluate.labels import ranking

        return draws.mean(getattr(ranking, self.kind)(answers.places, self.k))


@register(LABEL_METRICS, "ndcg")
class NDCG(_AtK):
    """Normalised discounted cumulative gain of the first k places, matching texts counting alike (Järvelin 2002)."""

    label: ClassVar[str] = "nDCG"
    explanation: ClassVar[str] = ("Quality of the first ten places: 1 when the matching texts stand first, less the "
                                  "further down they stand.")


@register(LABEL_METRICS, "mrr")
class MRR(_AtK):
    """Mean reciprocal rank of the first matching text, 0 when it is not among the first k."""

    label: ClassVar[str] = "Reciprocal rank (MRR)"
    explanation: ClassVar[str] = "1 when a matching text comes first, 1/2 when second, and so on."


@register(LABEL_METRICS, "recall")
class Recall(_AtK):
    """Share of a query's matching texts that stand among the first k."""

    label: ClassVar[str] = "Recall"
    explanation: ClassVar[str] = "Share of the matching texts that stand among the first ten."


@register(LABEL_METRICS, "map")
class MAP(_AtK):
    """Mean average precision of the first k places, over as many matching texts as could stand there."""

    label: ClassVar[str] = "Average precision (MAP)"
    explanation: ClassVar[str] = "Mean precision at each matching text among the first ten places."
