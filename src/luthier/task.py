"""What is learned: the task that every stage reads."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from luthier.spec import Spec

TaskType = Literal["assistant", "completion", "classify", "tag", "embed", "image"]
LABELLED: tuple[TaskType, ...] = ("classify", "tag", "embed", "image")
"""Tasks whose right answers are labels, tags or matching texts, and not written text."""
METRICS: dict[str, tuple[str, ...]] = {
    "assistant": ("token_f1", "answer_loss", "rouge_l", "similarity"),
    "completion": ("token_f1", "answer_loss", "rouge_l", "similarity"),
    "classify": ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "balanced_accuracy", "mcc", "log_loss"),
    "image": ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "balanced_accuracy", "mcc", "log_loss"),
    "tag": ("span_f1", "macro_span_f1", "token_accuracy"),
    "embed": ("ndcg", "mrr", "recall"),
}
"""Metrics that may decide, by task; the first is the default."""


class Task(Spec):
    """What the model shall do, in which language, and which metric decides."""

    type: TaskType = "assistant"
    """`assistant` answers questions in a chat; `completion` continues domain text; `classify` gives a text its class or
    classes; `tag` marks pieces of a text; `embed` finds texts that match a query; `image` gives an image its class."""
    system: str | None = None
    """System message used in training, evaluation and serving alike; None keeps the base model's own default."""
    language: str = "en"
    """Main language of the documents, as a two-letter code; it chooses stop words, stemmer and question words."""
    metric: str = "token_f1"
    """The one metric that compares systems in the verdict and chooses the best weights. assistant, completion:
    token_f1, answer_loss, rouge_l, similarity; classify, image: accuracy, macro_f1, micro_f1, weighted_f1,
    balanced_accuracy, mcc, log_loss; tag: span_f1, macro_span_f1, token_accuracy; embed: ndcg, mrr, recall (at 10)."""
    refusal: str = "I could not find this in the documents."
    """What the assistant answers when the documents do not hold the answer; trained, and recognised by evaluation."""
    labels: tuple[str, ...] = ()
    """Names of the classes or tags, in the order of the outputs; empty takes those that the training data holds."""
    multi_label: bool = False
    """classify: a text may have several classes, or none; each is then decided by itself."""
    abstain: float = Field(default=0.0, ge=0, le=1)
    """classify, image: an answer whose calibrated probability is below this is given as "none of these"; 0 always
    answers. The report shows what each level would cost and gain."""

    @model_validator(mode="before")
    @classmethod
    def _default_metric(cls, data: Any) -> Any:
        if isinstance(data, dict) and "metric" not in data and data.get("type") in LABELLED:
            first = "micro_f1" if data.get("multi_label") else METRICS[data["type"]][0]
            return {**data, "metric": first}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if self.metric not in METRICS[self.type]:
            raise ValueError(f"metric '{self.metric}' does not fit the task '{self.type}'; choose one of: "
                             f"{', '.join(METRICS[self.type])}")
        if self.multi_label and self.type != "classify":
            raise ValueError("multi_label is for the task 'classify'")
        if self.abstain and self.type not in ("classify", "image"):
            raise ValueError("abstain is for the tasks 'classify' and 'image'")
        if self.labels and self.type not in ("classify", "tag", "image"):
            raise ValueError(f"labels are for the tasks classify, tag and image, not '{self.type}'")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels holds a name twice")
        return self

    @property
    def labelled(self) -> bool:
        """Whether the right answers are labels, tags or matching texts, and not written text."""
        return self.type in LABELLED
