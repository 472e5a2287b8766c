"""`evaluate`: measure the systems on the frozen test set and say in one sentence which to use.

Reads prepare's test examples, the index, the base model and the trained run; writes `report.json`, `report.html` and
`predictions.jsonl` (one line per question and system, with lineage). `run` or `index` may be absent: the systems that
need them are then left out, and the report says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from luthier.errors import DataError
from luthier.evaluate.judge import Judge
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.evaluate.metrics import METRICS, Metric
from luthier.evaluate.recitation import Recitation
from luthier.evaluate.retention import Retention, fingerprint
from luthier.evaluate.verdict import ORDER, System
from luthier.index.rag import Rag
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.types import read_jsonl

VERSION = 1


def default_metrics() -> tuple[Metric, ...]:
    """Every built-in metric, in the order of the report."""
    return tuple(METRICS.get(kind)() for kind in (  # type: ignore[misc]
        "token_f1", "rouge_l", "similarity", "exact_match", "groundedness", "retrieved_groundedness",
        "refused_rightly", "refused_wrongly", "answer_loss", "perplexity"))


class Evaluate(Spec):
    """The frozen test, the comparison and the verdict."""

    systems: tuple[System, ...] = ORDER
    """What is compared: `base`, `retrieval` (base + retrieval), `tuned`, `tuned_retrieval`. `base` always is."""
    metrics: tuple[Annotated[Metric, METRICS], ...] = Field(default_factory=default_metrics)
    """What is measured; the task's own metric and `refused_wrongly`, which the verdict reads, are always added."""
    max_questions: int = Field(default=100, ge=1)
    """At most this many test questions, chosen by a hash; more questions give narrower intervals and take longer."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest answer in tokens; an answer is cut there."""
    latency_questions: int = Field(default=6, ge=0)
    """Questions that are asked one at a time to measure what a user waits; 0 leaves latency out."""
    bootstrap_samples: int = Field(default=2000, ge=200)
    """Draws behind every 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap and of the choice of questions."""
    min_questions: int = Field(default=20, ge=2)
    """With fewer test questions the verdict says that the test is too small to tell."""
    min_slice: int = Field(default=5, ge=2)
    """Smallest number of questions for which a slice (by maker, document, group) is shown."""
    worthwhile: float = Field(default=0.03, gt=0)
    """Smallest gain worth having: in units of the task's metric, or relative to the base for losses. A gain that is
    surely smaller wins nothing; where a larger one is possible but not shown, the verdict says how many questions
    would settle it."""
    max_wrong_refusal_rise: float = Field(default=0.1, ge=0, le=1)
    """A tuned system that wrongly refuses this much more (share of the answerable questions) cannot win."""
    retention: Retention = Retention()
    """General skills before and after tuning."""
    recitation: Recitation = Recitation()
    """Whether the tuned model recites personal data that was taken out of its training data."""
    judge: Judge | None = None
    """An optional language-model judge behind an endpoint; null for none."""
    examples_shown: int = Field(default=12, ge=0)
    """Questions shown with all answers in the report; all of them are in `predictions.jsonl`."""

    labels: LabelEvaluate = LabelEvaluate()
    """The tasks classify, tag, embed and image: what is compared, thresholds and costs. They also read
    bootstrap_samples, seed, min_questions (rows) and min_slice above; the other fields are for assistants."""

    @field_validator("systems")
    @classmethod
    def _ordered(cls, systems: tuple[System, ...]) -> tuple[System, ...]:
        return tuple(system for system in ORDER if system in systems or system == "base")


def evaluate(*, data: Artifact, index: Artifact | None, model: Artifact, run: Artifact | None, task: Task,
             rag: Rag = Rag(), spec: Evaluate = Evaluate(), store: Store, root: Path,  # noqa: B008
             progress: Progress = Silent()) -> Artifact:
    """Measure and compare; the artifact's summary holds the verdict and the decision metric of every system.

    A killed evaluation continues where it stopped, and the base's answers are reused by the next evaluation with the
    same base model. Raises DataError when the data has no test question.
    """
    if task.labelled:
        return _evaluate_labels(data=data, model=model, run=run, task=task, spec=spec, store=store, root=root,
                                progress=progress)
    inputs: dict[str, Any] = {
        "data": data, "index": index or "none", "model": model, "run": run or "none", "task": task.dump(),
        "rag": rag.dump(), "retention": fingerprint(spec.retention, root)}

    def make(folder: Path) -> Mapping[str, Any]:
        from luthier.evaluate.measure import measure

        return measure(folder, data=data, index=index, model=model, run=run, task=task, rag=rag, spec=spec,
                       store=store, root=root, progress=progress)

    return store.build("evaluate", version=VERSION, spec=spec, inputs=inputs, make=make)


def _evaluate_labels(*, data: Artifact, model: Artifact, run: Artifact | None, task: Task, spec: Evaluate,
                     store: Store, root: Path, progress: Progress) -> Artifact:
    def make(folder: Path) -> Mapping[str, Any]:
        from luthier.evaluate.labels.measure import measure_labels

        return measure_labels(folder, data=data, model=model, run=run, task=task, spec=spec, store=store, root=root,
                              progress=progress)

    return store.build("evaluate", version=VERSION, spec=spec, make=make,
                       inputs={"data": data, "model": model, "run": run or "none", "task": task.dump(),
                               "zero_shot": spec.labels.zero_shot.fingerprint(root) if spec.labels.zero_shot else ""})


def read_report(artifact: Artifact) -> dict[str, Any]:
    """The content of `report.json`."""
    try:
        return json.loads((artifact.path / "report.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{artifact.path} holds no readable report.json: {error}") from None


def read_predictions(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """The rows of `predictions.jsonl`: one per question and system."""
    return read_jsonl(artifact.path / "predictions.jsonl")
