"""A chain of fits, each of a new column beside frozen ones: how a progressive network learns its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from luthier.adapt import predict
from luthier.adapt.columns import NEVER, ProgressiveNetwork
from luthier.adapt.grow_columns import as_column, finished, with_column
from luthier.adapt.lora import LoRA
from luthier.adapt.network import LabelModel
from luthier.adapt.router import Router, centroids_of, limit_of
from luthier.errors import ContractError, DataError, ModelError
from luthier.train.labelled.base import Fit, Fitted, Job
from luthier.train.run import spread
from luthier.train.strategies._stages import copied
from luthier.train.strategies._tasks import Tasks
from luthier.types import Example

PROBE = 200
"""Rows of each task on which it is checked that its column answers the same bits in the end."""
CENTROID_ROWS = 2000
"""Train rows of each task, evenly chosen, whose features make the router's centroids."""


@dataclass(frozen=True)
class Shape:
    """What the columns are made of."""

    adapter: LoRA | None
    """Of adapter columns; None for full ones."""
    reads: int
    router: bool
    """Whether a router will be needed."""
    earlier: str
    """Name of the first column, where training begins from a model without columns."""


@dataclass(frozen=True)
class Chain:
    """Columns learned one after another."""

    model: LabelModel
    """All columns; the last one is active."""
    names: tuple[str, ...]
    """Tasks that got a column now, in their order."""
    jobs: Sequence[Job]
    fitted: Sequence[Fitted]

    @property
    def network(self) -> ProgressiveNetwork:
        assert isinstance(self.model.module, ProgressiveNetwork)
        return self.model.module


def earlier_columns(job: Job, shape: Shape) -> LabelModel | None:
    """The model that training begins from, as columns; None where it begins from a base model."""
    return None if job.past is None else as_column(job.past.open(), shape.earlier, shared=shape.adapter is not None)


def learn_columns(fit: Fit, job: Job, tasks: Tasks, names: Sequence[str], shape: Shape, old: LabelModel | None
                  ) -> Chain:
    """Fit a column for each of the tasks `names`; `job.open` gives the base model with a fresh head. Every stage keeps
    its outcome in a folder of its own. ContractError where an older column's answers changed by a bit."""
    last, said = old, {} if old is None else _said(job, tasks, old, names)
    jobs: list[Job] = []
    fitted: list[Fitted] = []
    for at, name in enumerate(names):
        jobs.append(_stage(job, tasks, name, at, len(names), shape, last))
        job.progress.say(f"  {jobs[-1].note}: {len(jobs[-1].train):,} rows, {len(tasks.labels[name])} labels")
        found = fit(jobs[-1])
        last = found.model
        fitted.append(found)
        said[name] = _answers_of(last, _probe(job, tasks, name), name)
    assert last is not None
    for name, values in said.items():
        rows = _probe(job, tasks, name if name in names else names[0])
        if not np.array_equal(values, _answers_of(last, rows, name)):
            raise ContractError(f"contract point 9 (layer groups): the column '{name}' answers otherwise than when it "
                                "was learned; nothing was kept")
    return Chain(last, tuple(names), jobs, fitted)


def _stage(job: Job, tasks: Tasks, name: str, at: int, count: int, shape: Shape, last: LabelModel | None) -> Job:
    labels = tasks.labels[name]
    if len(labels) < 2:
        label = ", ".join(labels)
        raise DataError(f"train.strategy: the task '{name}' has the label '{label}' alone, and a column tells "
                        "classes from each other; join it with another task")

    def opened(seed: int) -> LabelModel:
        return with_column(None if last is None else copied(last), job.open(seed), name, labels, reads=shape.reads,
                           adapter=shape.adapter, seed=seed, router=shape.router)

    place = at if last is None else len(last.module.columns)  # type: ignore[arg-type]
    return job.but(open=opened, train=tasks.rows(job.train, name), validation=tasks.rows(job.validation, name),
                   unlabelled=(), test=(), folder=job.folder / f"column-{at + 1}", seed=job.seed + place, keep=True,
                   look_for_leaks=False, check_labels=False, note=f"column {at + 1} of {count}, {name}")


def _probe(job: Job, tasks: Tasks, name: str) -> list[Example]:
    return spread(tasks.rows(job.validation, name) or tasks.rows(job.train, name), PROBE)


def _answers_of(model: LabelModel, examples: Sequence[Example], name: str) -> np.ndarray:
    """One column's own logits float32 [rows, its labels]."""
    network: Any = model.module
    at = network.names.index(name)
    one = model.but(module=network.view(at), labels=network.columns[at].labels)
    return predict.logits(one, model.rows(examples, targets=False))


def _said(job: Job, tasks: Tasks, old: LabelModel, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the columns that were there before answer, to rows of the first new task."""
    network: Any = old.module
    rows = _probe(job, tasks, names[0])
    return {name: _answers_of(old, rows, name) for name in network.names}


# The router

def fit_router(chain: Chain, job: Job, tasks: Tasks, old: LabelModel | None, *,
               kind: Literal["class", "task"], quantile: float) -> tuple[Router, dict[str, Any]]:
    """The router of all columns, and its report on the validation rows. ModelError where nothing is known of how the
    rows of an earlier column look."""
    model, network = chain.model, chain.network
    base = model.but(module=network.view(None))
    centroids, limits = ([], []) if old is None else _known(old, base, job, kind=kind, quantile=quantile)
    held: dict[str, np.ndarray] = {}
    for name in network.names:
        examples = tasks.rows(job.validation, name) if name in tasks.names else []
        held[name] = _features(base, examples)
    for name in chain.names:
        examples = spread(tasks.rows(job.train, name), CENTROID_ROWS)
        values = _features(base, examples)
        centroids.append(centroids_of(values, _classes(examples, kind)))
        limits.append(limit_of(centroids[-1], held[name] if len(held[name]) else values, quantile))
    report = _routed(Router.of(centroids, limits), held)
    return Router.of(centroids, limits, report["error"]), {
        "centroids": kind, "quantile": quantile, "rows": "validation", **report}


def _known(old: LabelModel, base: LabelModel, job: Job, *, kind: str, quantile: float
           ) -> tuple[list[np.ndarray], list[float]]:
    """Centroids and limits of the earlier columns: from their router, or from the rows that the earlier model kept."""
    network: Any = old.module
    if network.router is not None:
        return network.router.parts()
    rows = [] if job.past is None else [row for row in job.past.rows if set(row.labels or ()) & set(old.labels)]
    if len(network.names) > 1 or not rows:
        raise ModelError(f"the router must know how the inputs of '{network.names[0]}' look, and the model that "
                         "training begins from kept no rows; train it again with train.keep, such as "
                         "{kind: reservoir}, or set router: none in train.strategy")
    values = _features(base, rows)
    centroids = centroids_of(values, _classes(rows, kind))
    return [centroids], [limit_of(centroids, values, quantile)]


def _classes(examples: Sequence[Example], kind: str) -> list[str]:
    return [(example.labels or ("",))[0] if kind == "class" else "" for example in examples]


def _features(base: LabelModel, examples: Sequence[Example]) -> np.ndarray:
    return predict.features(base, base.rows(examples, targets=False))


def _routed(router: Router, held: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How rows of each task are routed. `error` is the share that goes wrong of those in scope, with one row more on
    either side, so that no router counts as perfect."""
    import torch

    names, by_task, wrong, inside_of = [*held], {}, 0, 0
    sent = np.zeros((len(names), len(names)), dtype=np.int64)
    for at, (name, values) in enumerate(held.items()):
        if not len(values):
            by_task[name] = {"n": 0, "accuracy": None, "abstained": None}
            continue
        column, inside = (found.numpy() for found in router(torch.from_numpy(values)))
        sent[at] = np.bincount(column, minlength=len(names))
        wrong, inside_of = wrong + int((column[inside] != at).sum()), inside_of + int(inside.sum())
        by_task[name] = {"n": len(values), "accuracy": round(float((column == at).mean()), 6),
                         "abstained": round(float(1 - inside.mean()), 6)}
    n = int(sent.sum())
    return {"n": n, "accuracy": round(float(np.trace(sent) / n), 6) if n else None,
            "abstained": round(1 - inside_of / n, 6) if n else None, "error": (wrong + 1) / (inside_of + 2),
            "by_task": by_task, "columns": names, "sent": sent.tolist()}


# What every stage's model answers

def stage_answers(chain: Chain, job: Job, tasks: Tasks, router: Router | None, examples: Sequence[Example],
                  outputs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [stages, rows, outputs] of the model as it was after each of `tasks`: without a named task, and
    with it; NaN at labels that no column of that stage has, and in the second where the row's task has none yet.

    Columns never change, so the finished model's columns are asked, each once, and a stage chooses among those that it
    had. Nothing else changes with the stages but the choice.
    """
    network, every = chain.network, np.arange(len(examples))
    own = np.array([network.names.index(name) if (name := tasks.of(example)) in network.names else -1
                    for example in examples], dtype=np.int64)
    counts = [network.names.index(name) + 1 for name in tasks.names]
    choices = None
    if router is not None:
        near = _nearness(router, _features(chain.model.but(module=network.view(None)), examples))
        choices = np.stack([near[:, :count].argmax(1) for count in counts])
    said = np.stack([_said_by(chain, at, examples, outputs, None if choices is None else
                              (choices == at).any(0) | (own == at)) for at in range(max(counts))])
    routed, named = [], []
    for turn, count in enumerate(counts):
        columns: Any = [*network.columns][:count]
        known = np.isin(outputs, [label for column in columns for label in column.labels])
        found = _mean(said[:count]) if choices is None else said[choices[turn], every]
        routed.append(np.where(np.isnan(found) & known, NEVER, found))
        asked = (own >= 0) & (own < count)
        named.append(np.where(asked[:, None], said[np.where(asked, own, 0), every], np.nan))
    return np.stack(routed).astype(np.float32), np.stack(named).astype(np.float32)


def _said_by(chain: Chain, at: int, examples: Sequence[Example], outputs: Sequence[str], asked: np.ndarray | None
             ) -> np.ndarray:
    """One column's logits [rows, outputs] at its labels, for the rows where `asked` (bool [rows], None: all)."""
    network: Any = chain.network
    mine = np.arange(len(examples)) if asked is None else np.flatnonzero(asked)
    places = np.array([outputs.index(label) for label in network.columns[at].labels], dtype=np.int64)
    found = np.full((len(examples), len(outputs)), np.nan)
    found[np.ix_(mine, places)] = _answers_of(chain.model, [examples[int(row)] for row in mine], network.names[at])
    return found


def _nearness(router: Router, features: np.ndarray) -> np.ndarray:
    import torch

    return router.near(torch.from_numpy(features)).numpy()


def _mean(said: np.ndarray) -> np.ndarray:
    """Log of the mean probabilities of columns [columns, rows, outputs], NaN where none of them has the label."""
    none = np.isnan(said).all(0)
    chances = predict.probabilities(np.where(np.isnan(said), -np.inf, said))
    return np.where(none, np.nan, np.log(chances.mean(0) + 1e-30))


def whole(chain: Chain, outputs: Sequence[str], router: Router | None) -> LabelModel:
    """The model that answers with or without a named task."""
    return finished(chain.model, outputs, router)
