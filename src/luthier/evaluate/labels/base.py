"""Settings of the evaluation of labelled tasks: the section `evaluate.labels` of luthier.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from luthier.evaluate.labels.metrics import LABEL_METRICS, LabelMetric
from luthier.spec import Spec

LabelSystem = Literal["majority", "lookup", "tfidf", "pixels", "zero_shot", "bm25", "base", "features", "tuned"]


class Costs(Spec):
    """What mistakes cost, in any one unit (money, minutes); thresholds are chosen so that answers cost least."""

    wrong: float = Field(default=1.0, gt=0)
    """A wrong class where each row has one class."""
    abstain: float = Field(default=0.2, gt=0)
    """No answer, so that a person must decide."""
    false_positive: float = Field(default=1.0, gt=0)
    """A label that was given and does not apply (two classes: the positive one; several labels a row: each label)."""
    false_negative: float = Field(default=1.0, gt=0)
    """A label that applies and was not given."""
    positive: str | None = None
    """The class that false_positive and false_negative speak of where there are two; null takes the rarer one."""


class ZeroShot(Spec):
    """A chat model that is given the names of the classes and no example: what nothing but a prompt achieves."""

    model: str = "starter:chat"
    """A chat model source (`starter:chat`, a folder, `hub:owner/name`), whose likelihood of each class name is
    compared; or the model's name at `base_url`, which then writes the name."""
    base_url: str | None = None
    """Address of an OpenAI-compatible API; the test texts are sent there. null uses a model on this machine."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; null for an endpoint without one."""
    instruction: str = "Which of these classes does the text belong to?"
    """What the model is asked, before the list of classes and the text."""

    def fingerprint(self, root: Path) -> str:
        """Identifies the files of a model on this machine; empty for an endpoint. ModelError when it is missing."""
        if self.base_url is not None:
            return ""
        from luthier.models.sources import resolve

        return resolve(self.model, root=root).fingerprint


class LabelEvaluate(Spec):
    """How classifiers, taggers and embeddings are measured, compared and calibrated."""

    systems: tuple[LabelSystem, ...] = ("majority", "lookup", "tfidf", "zero_shot", "bm25", "base", "features", "tuned")
    """What is compared, where it fits the task: classify: majority (always the commonest class), tfidf (logistic
    regression on words and letters), features (logistic regression on the untouched base model), tuned; image: pixels
    in place of tfidf; tag: lookup (each word's commonest tag), tuned; embed: bm25 (keyword search), base, tuned."""
    metrics: tuple[Annotated[LabelMetric, LABEL_METRICS], ...] | None = None
    """What is measured; null takes every measure that fits. The task's own metric is always added."""
    max_rows: int = Field(default=20_000, ge=10)
    """At most this many test rows, chosen by a hash."""
    worthwhile: float = Field(default=0.005, gt=0)
    """Smallest gain worth having, in units of the task's metric: a system that surely gains less wins nothing."""
    features_c: tuple[float, ...] = Field(default=(0.01, 0.03, 0.1, 0.3, 1.0), min_length=1)
    """Inverse strengths of the penalty (C) tried on the validation rows for logistic regression on features."""
    tfidf_c: tuple[float, ...] = Field(default=(10.0,), min_length=1)
    """The same for logistic regression on TF-IDF, where each value costs a whole fit."""
    zero_shot: ZeroShot | None = None
    """A chat model asked with the names of the classes alone; null leaves it out. Time grows with rows × classes."""
    costs: Costs = Costs()
    """What mistakes cost; the report shows the thresholds that follow."""
    keep_in_scope: float = Field(default=0.95, gt=0, lt=1)
    """Share of the validation rows that the proposed out-of-scope threshold still answers."""
    max_candidates: int = Field(default=20_000, ge=10)
    """embed: at most this many texts are searched; those that match test queries are always among them."""
    latency_rows: int = Field(default=30, ge=0)
    """Rows that are asked one at a time to measure what a user waits; 0 leaves it out."""
    mistakes_shown: int = Field(default=15, ge=0)
    """Mistakes made with most confidence that the report shows; all rows are in `predictions.jsonl`."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if isinstance(data, dict) and "tuned" not in data.get("systems", ("tuned",)):
            raise ValueError("systems: 'tuned' is what all others are compared with; add it")
        return data

    @model_validator(mode="after")
    def _positive(self) -> LabelEvaluate:
        if min(*self.features_c, *self.tfidf_c) <= 0:
            raise ValueError("features_c and tfidf_c must be above 0")
        return self
