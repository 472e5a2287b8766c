"""The task's metric on validation rows: what chooses the best weights while training. `evaluate` measures the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luthier.adapt import predict
from luthier.adapt.backbones.base import Row
from luthier.adapt.network import IGNORED, LabelModel
from luthier.adapt.spans import decode_spans
from luthier.errors import need
from luthier.types import Example, Tag

LOWER = ("log_loss",)
AT = 10
"""Depth of ndcg, mrr and recall."""


def score_labels(metric: str, targets: np.ndarray, logits: np.ndarray, *, multi_label: bool) -> float:
    """A metric of `luthier.task.METRICS` for classes: targets int [rows], or 0/1 [rows, classes] with `multi_label`."""
    metrics = need("sklearn.metrics", extra="train")
    chances = predict.probabilities(logits, multi_label=multi_label)
    if metric == "log_loss":
        if multi_label:
            kept = np.clip(chances, 1e-12, 1 - 1e-12)
            return float(-(targets * np.log(kept) + (1 - targets) * np.log(1 - kept)).mean())
        return float(-np.log(np.clip(chances[np.arange(len(targets)), targets], 1e-12, 1)).mean())
    found = (chances >= 0.5).astype(int) if multi_label else chances.argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class without rows in the validation set
        if metric == "accuracy":
            return float(metrics.accuracy_score(targets, found))
        if metric.endswith("_f1"):
            return float(metrics.f1_score(targets, found, average=metric.removesuffix("_f1"), zero_division=0))
        if multi_label:
            return float(np.mean([_of_one(metrics, metric, targets[:, at], found[:, at])
                                  for at in range(targets.shape[1])]))
        return _of_one(metrics, metric, targets, found)


def _of_one(metrics: Any, metric: str, targets: np.ndarray, found: np.ndarray) -> float:
    return float(metrics.matthews_corrcoef(targets, found) if metric == "mcc"
                 else metrics.balanced_accuracy_score(targets, found))


def score_spans(metric: str, wanted: Sequence[Sequence[Tag]], found: Sequence[Sequence[Tag]]) -> float:
    """F1 of exact spans (start, end and label), over all of them (`span_f1`) or as the mean over labels."""
    def counts(rows: Sequence[Sequence[Tag]]) -> set[tuple[int, int, int, str]]:
        return {(at, tag.start, tag.end, tag.label) for at, row in enumerate(rows) for tag in row}

    right, said = counts(wanted), counts(found)
    if metric == "span_f1":
        return _f1(len(right & said), len(said), len(right))
    labels = sorted({tag[3] for tag in right | said})
    return float(np.mean([_f1(*(sum(tag[3] == label for tag in group) for group in (right & said, said, right)))
                          for label in labels])) if labels else 0.0


def _f1(hits: int, said: int, right: int) -> float:
    return 2 * hits / (said + right) if said + right else 0.0


def ranks(queries: np.ndarray, documents: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank (from 1) of each query's document by cosine, ties counted against it. [queries]"""
    found = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), 512):
        part = slice(start, start + 512)
        scores = queries[part] @ documents.T
        own = scores[np.arange(len(scores)), right[part]][:, None]
        found[part] = (scores >= own).sum(1)
    return found


def score_ranks(metric: str, found: np.ndarray) -> float:
    """ndcg, mrr or recall at 10 where every query has one right document."""
    inside = found <= AT
    values = inside / np.log2(found + 1.0) if metric == "ndcg" else inside / found if metric == "mrr" else inside
    return float(np.mean(values))


def restricted(model: LabelModel, rows: Sequence[Row], values: np.ndarray, parts: Mapping[str, Sequence[str]]
               ) -> np.ndarray:
    """Logits [rows, classes] with -inf at the classes that take no part in a row's loss (`Row.part`)."""
    if not any(row.part for row in rows):
        return values
    open_to = {name: np.isin(model.labels, [*names]) for name, names in parts.items()}
    every = np.ones(len(model.labels), dtype=bool)
    return np.where(np.stack([open_to.get(row.part, every) for row in rows]), values, -np.inf).astype(np.float32)


def validate(model: LabelModel, examples: Sequence[Example], rows: Sequence[Row], *,
             parts: Mapping[str, Sequence[str]] | None = None) -> tuple[float, float, np.ndarray | None]:
    """(the task's metric, mean loss in nats, logits [rows, classes] where the task has classes; -inf at classes that
    take no part in a row's loss).

    The loss is the plain one: no class weights, no smoothing. Embed: the in-batch loss is replaced by 1 - metric.
    """
    task = model.task
    if task.type == "embed":
        value = score_ranks(task.metric, embed_ranks(model, rows))
        return value, 1 - value, None
    if task.type == "tag":
        logits = predict.tag_logits(model, rows)
        loss, right, total = 0.0, 0, 0
        for row, values in zip(rows, logits):
            keep = row.target != IGNORED
            chances = predict.probabilities(values)[keep]
            wanted = row.target[keep]
            loss -= float(np.log(np.clip(chances[np.arange(len(wanted)), wanted], 1e-12, 1)).sum())
            right, total = right + int((chances.argmax(-1) == wanted).sum()), total + len(wanted)
        if task.metric == "token_accuracy":
            return right / max(total, 1), loss / max(total, 1), None
        found = decode_spans(model, examples, rows, logits)
        return score_spans(task.metric, [e.spans or () for e in examples], found), loss / max(total, 1), None
    values = restricted(model, rows, predict.logits(model, rows), parts or {})
    targets = np.stack([row.target for row in rows])
    return (score_labels(task.metric, targets, values, multi_label=task.multi_label),
            score_labels("log_loss", targets, values, multi_label=task.multi_label), values)


def embed_ranks(model: LabelModel, rows: Sequence[Row]) -> np.ndarray:
    """Rank of every query's first matching text among all texts of these rows."""
    documents: dict[tuple[int, ...], Row] = {}
    for row in rows:
        for document in row.target:
            documents.setdefault(document.data, document)
    places = {data: at for at, data in enumerate(documents)}
    texts = predict.logits(model, list(documents.values()))
    return ranks(predict.logits(model, rows), texts, np.array([places[row.target[0].data] for row in rows]))
