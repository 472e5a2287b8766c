"""A chain of fits, each beginning with the model of the one before: how a sequence of tasks is learned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from luthier.adapt import predict
from luthier.adapt.grow import grown, spread_outputs, with_outputs
from luthier.adapt.network import LabelModel
from luthier.train import streams
from luthier.train.labelled import kept
from luthier.train.labelled.base import Fit, Fitted, Job
from luthier.train.labelled.pool import learns_head_only
from luthier.train.past import Past
from luthier.train.strategies._members import plain
from luthier.train.strategies._tasks import Tasks
from luthier.types import Example

ANSWERS = "answers.safetensors"


@dataclass(frozen=True)
class Way:
    """How each stage is trained."""

    heads: Literal["shared", "own"]
    choose_by: Literal["new", "all"]
    from_stage: int


@dataclass(frozen=True)
class Chain:
    """What came out of a sequence."""

    tasks: Tasks
    """In the order learned."""
    fitted: Sequence[Fitted]
    jobs: Sequence[Job]
    answers: Mapping[str, np.ndarray]
    """`validation` and `test`: logits float32 [stages, rows, labels of the job's model], NaN at labels that a stage's
    model does not have; the model before the first task comes first where `has_start`."""
    has_start: bool


def run_chain(fit: Fit, job: Job, base: LabelModel, tasks: Tasks, way: Way, asked: Mapping[str, Sequence[Example]]
              ) -> Chain:
    """Learn the tasks in their order, beginning with `base` (what `job.open` gives; it stays as it is). `asked` are the
    rows that every stage's model answers, by name.

    Every stage keeps its outcome in a folder of its own, so that a killed run goes on with the stage it was in.
    """
    outputs = base.labels
    seen = {*learned(job.past)} & {*outputs}
    answers: dict[str, list[np.ndarray]] = {name: [] for name in asked}
    start = _start(job, base, tasks, seen)
    if start is not None:
        file = job.folder / f"start-{ANSWERS}"
        for name, values in _answers(job, start, asked, file, "start", outputs).items():
            answers[name].append(values)
    fitted: list[Fitted] = []
    jobs: list[Job] = []
    last: LabelModel | None = None
    past = job.past
    for at, name in enumerate(tasks.names):
        new = [label for label in tasks.labels[name] if label not in seen]
        seen |= set(new)
        one = _stage(job, tasks, way, at, past, labels=_sorted(seen, outputs), new=new,
                     opened=_opener(job, base, last, _sorted(seen, outputs)))
        job.progress.say(f"  {one.note}: {len(one.train):,} rows, {len(tasks.labels[name])} labels"
                         + (f", {len(one.replay):,} kept rows to replay" if one.replay else ""))
        found = fit(one)
        fitted.append(found)
        jobs.append(one)
        last = plain_like(found.model, one.folder, base)
        for which, values in _answers(job, last, asked, one.folder / ANSWERS, kept.identity(one), outputs).items():
            answers[which].append(values)
        past = _past(last, found)
    return Chain(tasks, fitted, jobs, {name: np.stack(values) for name, values in answers.items()}, start is not None)


def learned(past: Past | None) -> tuple[str, ...]:
    """The labels that the model which training begins from knows already."""
    return () if past is None else past.labels or past.open().labels


def _start(job: Job, base: LabelModel, tasks: Tasks, seen: set[str]) -> LabelModel | None:
    """The model before the first task, where asking it makes sense: it has learned before, or tasks share labels, so
    that they are asked about before their turn (forward transfer is measured against it)."""
    if job.past is not None:
        return with_outputs(job.open(job.seed), _sorted(seen, base.labels)) if seen else None
    shared = sum(len(labels) for labels in tasks.labels.values()) > len(base.labels)
    return base if shared else None


def _opener(job: Job, base: LabelModel, last: LabelModel | None, labels: Sequence[str]) -> Callable[[int], LabelModel]:
    """How a stage's model is opened: the base model for the first, else a copy of the last one, with outputs for the
    labels seen so far."""
    def opened(seed: int) -> LabelModel:
        if last is None:
            return with_outputs(job.open(seed), labels, seed=seed)
        model = grown(copied(last), labels, method=base.method, seed=seed)
        return model.but(fingerprint=base.fingerprint) if learns_head_only(job, base) else model

    return opened


def _stage(job: Job, tasks: Tasks, way: Way, at: int, past: Past | None, *, labels: Sequence[str], new: Sequence[str],
           opened: Callable[[int], LabelModel]) -> Job:
    """The fit of the task at one place. `labels` are those of the tasks so far, `new` those that no task before had."""
    name = tasks.names[at]
    train = tasks.rows(job.train, name)
    so_far = tasks.names[: at + 1] if way.choose_by == "all" else (name,)
    held = [example for example in job.validation if tasks.of(example) in so_far]
    own = {example.id for example in train}
    replay = [] if not job.spec.replay or past is None else [
        example for example in past.rows if example.id not in own and not set(example.labels or ()) - set(labels)]
    parts: dict[str, Sequence[str]] = {}
    part_of: dict[str, str] = {}
    if way.heads == "own":
        parts = {one: tasks.labels[one] for one in tasks.names[: at + 1]}
        part_of = {example.id: mine for example in [*train, *held, *replay] if (mine := tasks.of(example)) in parts}
    from_base = at == 0 and job.past is None
    return job.but(
        open=opened, train=train, validation=held, unlabelled=(), test=(), replay=replay, past=past, parts=parts,
        part_of=part_of, folder=job.folder / f"stage-{at + 1}", seed=job.seed + at, keep=True, look_for_leaks=False,
        check_labels=False, note=f"task {at + 1} of {len(tasks.names)}, {name}",
        warm=(job.warm or job.past is not None) and bool(new), warm_labels=None if from_base else new,
        protect=job.past is not None or at + 1 >= way.from_stage)


def _past(model: LabelModel, fitted: Fitted) -> Past:
    """What the next stage may know of this one."""
    memory = fitted.memory or {}
    return Past(open=lambda: copied(model), labels=model.labels, rows=memory.get("rows", ()),
                logits=memory.get("logits") or {}, kept=memory.get("kept") or {}, facts=memory.get("facts") or {})


def copied(model: LabelModel) -> LabelModel:
    """The same weights in a network of its own, in evaluation mode; the processor is shared."""
    processor = model.processor
    module = copy.deepcopy(model.module, {id(processor): processor})
    return model.but(module=module.requires_grad_(False).eval())


def plain_like(model: LabelModel, folder: Path, base: LabelModel) -> LabelModel:
    """The model with its adapters merged, reading its inputs as `base` does (image files lie below its root)."""
    merged = plain(model, folder)
    for name in ("root", "cache"):
        if merged is not model and hasattr(base.processor, name):
            setattr(merged.processor, name, getattr(base.processor, name))
    return merged.but(fingerprint="")


def _sorted(labels: set[str], outputs: Sequence[str]) -> list[str]:
    """In the order of the data's labels."""
    return [label for label in outputs if label in labels]


def _answers(job: Job, model: LabelModel, asked: Mapping[str, Sequence[Example]], file: Path, identity: str,
             outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """Logits [rows, outputs] of the rows that are asked, taken from `file` where an earlier call left them there."""
    if file.is_file():
        tensors, note = streams.read_tensors(file)
        if note.get("of") == identity:
            return {name: value.numpy() for name, value in tensors.items()}
    found = {}
    for name, examples in asked.items():
        rows = inputs_of(job, model, examples)
        found[name] = spread_outputs(predict.logits(model, rows), model.labels, outputs)
    streams.write_tensors(file, {name: torch.from_numpy(value) for name, value in found.items()}, {"of": identity})
    return found


def inputs_of(job: Job, model: LabelModel, examples: Sequence[Example]) -> Sequence[Any]:
    """Rows without their answers: finished features where the backbone stood still."""
    pool = job.pool
    rows = model.rows(examples, targets=False)
    if pool is None or not pool.head_only or not all(row.id in pool.vectors for row in rows) or not rows:
        return rows
    return [row.but(data=pool.vectors[row.id], size=1) for row in rows]

