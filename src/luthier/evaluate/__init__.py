"""Evaluate: is it worth it? Base, retrieval, tuned and tuned + retrieval on the frozen test set, and one verdict."""

from luthier.evaluate.base import Evaluate, evaluate, read_predictions, read_report
from luthier.evaluate.judge import Judge
from luthier.evaluate.metrics import METRICS, Metric, Prediction
from luthier.evaluate.retention import Retention
from luthier.evaluate.verdict import ORDER, Verdict

__all__ = ["METRICS", "ORDER", "Evaluate", "Judge", "Metric", "Prediction", "Retention", "Verdict", "evaluate",
           "read_predictions", "read_report"]
