"""The metric seam: one file each. A metric gives one value per question; `compare` turns values into intervals.

Built-in kinds: token_f1, exact_match, rouge_l, similarity, groundedness, retrieved_groundedness, refused_rightly,
refused_wrongly, answer_loss, perplexity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from luthier.evaluate.text import is_refusal
from luthier.plugins import Seam
from luthier.spec import Spec
from luthier.task import Task
from luthier.types import Example, Passage

METRICS = Seam("metric", package="luthier.evaluate.metrics")
_CITATION = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one system answered to one question."""

    example: str
    """Id of the example."""
    system: str
    text: str | None = None
    """The answer; None where nothing was generated (raw text has no answer)."""
    passages: tuple[Passage, ...] = ()
    """Passages that stood in the prompt; empty without retrieval."""
    num_tokens: int = 0
    finish: str = "stop"
    """`stop`, or `length` when the answer was cut at the token limit."""
    seconds: float = 0.0
    """This question's share of the wall time of its batch (retrieval not included)."""
    cpu_seconds: float = 0.0
    """Its share of the CPU time of its batch, retrieval included."""
    loss_sum: float | None = None
    """Nats over the tokens of the reference answer, given this system's prompt; None where it was not measured."""
    loss_tokens: int = 0

    @property
    def uncited(self) -> str | None:
        """The answer without its citations `[2]`, which the retrieval prompt asks for and no reference holds."""
        return _CITATION.sub("", self.text) if self.text is not None and self.passages else self.text


@dataclass(frozen=True)
class Context:
    """What a metric may need besides the example and the answer."""

    task: Task
    sources: Mapping[str, Sequence[Passage]] = field(default_factory=dict)
    """Passages that an example was made from, by example id; absent for the user's own pairs."""
    embed: Callable[[Sequence[str]], Any] | None = None
    """Texts to unit vectors, array [texts, dimensions], with the index's encoder."""

    def refused(self, prediction: Prediction) -> bool:
        return is_refusal(prediction.uncited or "", self.task.refusal, self.task.language)


class Metric(Spec):
    """Base of every metric: `score` gives one value per example, or None where the metric does not apply."""

    label: ClassVar[str] = ""
    """Name for people."""
    explanation: ClassVar[str] = ""
    """One sentence for a stranger, shown in the report."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    needs: ClassVar[Literal["answers", "loss"]] = "answers"
    """`answers`: generated text; `loss`: token loss of the reference."""
    unit: ClassVar[Literal["share", "nats", "ratio"]] = "share"
    """share: 0 to 1; nats: mean natural-log loss per token; ratio: any positive number."""

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction],
              context: Context) -> list[float | None]:
        """One value per pair of example and prediction, in order."""
        raise NotImplementedError(f"metric '{self.kind}' must define score()")

    def weights(self, predictions: Sequence[Prediction]) -> list[float]:
        """Weight of each value in the mean: 1, or the tokens of the reference for losses."""
        return [1.0] * len(predictions)

    def finish(self, mean: Any) -> Any:
        """From the weighted mean to the reported figure (a number or an array of them); must be monotonic."""
        return mean


def answered(examples: Sequence[Example], predictions: Sequence[Prediction], context: Context,
             score: Callable[[list[tuple[str, str]]], Sequence[float]]) -> list[float | None]:
    """Score answers against references by the no-answer rule of SQuAD 2.0.

    `score` gets the (reference, answer) pairs that can be compared. An unanswerable question counts 1 when refused
    and 0 when answered; an answerable one that is refused, or gets an empty answer, counts 0.
    """
    values: list[float | None] = []
    compared: list[tuple[int, tuple[str, str]]] = []
    for place, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        refused = context.refused(prediction)
        answer = prediction.uncited
        if answer is None or example.target is None:
            values.append(None)
        elif "unanswerable" in example.tags:
            values.append(float(refused))
        elif refused or not answer.strip():
            values.append(0.0)
        else:
            values.append(None)
            compared.append((place, (example.target, answer)))
    for (place, _), value in zip(compared, score([pair for _, pair in compared]) if compared else (), strict=True):
        values[place] = float(value)
    return values
