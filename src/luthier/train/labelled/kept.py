"""Finished fits of a strategy, kept in their folders: after a kill they are taken from there, not run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from luthier.adapt.network import LabelModel
from luthier.store import canonical
from luthier.train import streams
from luthier.train.labelled.base import Fitted, Job
from luthier.train.past import FOLDER, load_past, save_past
from luthier.types import digest, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "fitted.safetensors"
_LOGITS = "#logits"


def file_of(job: Job) -> Path:
    """Where a job's outcome is kept."""
    return job.folder / FILE


def keep(job: Job, tensors: Mapping[str, torch.Tensor], fitted: Fitted) -> None:
    """Write what the fit learned (`tensors`: learned float32 weights, and `buffer/…`) and what it found."""
    if fitted.memory is not None:
        save_past(job.folder / FOLDER, **fitted.memory)
    extra = {} if fitted.logits is None else {_LOGITS: torch.from_numpy(np.ascontiguousarray(fitted.logits))}
    streams.write_tensors(file_of(job), {**tensors, **extra}, {
        "job": identity(job), "value": fitted.value, "loss": fitted.loss, "summary": fitted.summary})


def recall(job: Job) -> Fitted | None:
    """The outcome of an earlier call for the very same job, with the same bits; None where there is none."""
    if not file_of(job).is_file():
        return None
    tensors, note = streams.read_tensors(file_of(job))
    if note.get("job") != identity(job):
        return None
    logits = tensors.pop(_LOGITS, None)
    model = job.open(job.seed)
    put(model, tensors)
    model.module.requires_grad_(False).eval()
    memory = None
    if (job.folder / FOLDER).is_dir():
        past = load_past(job.folder / FOLDER, lambda: model)
        memory = {"labels": past.labels, "rows": past.rows, "logits": past.logits, "kept": past.kept,
                  "facts": past.facts}
    return Fitted(model=model.but(fingerprint=""), value=note["value"], loss=note["loss"], summary=note["summary"],
                  logits=None if logits is None else logits.numpy(), memory=memory)


@torch.no_grad()
def put(model: LabelModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy learned weights and buffers into a model's network, which becomes float32."""
    network = model.module.to(torch.float32)
    for name, value in network.named_parameters():
        if name in tensors:
            value.copy_(tensors[name])
    for name, value in network.named_buffers():
        if f"buffer/{name}" in tensors:
            value.copy_(tensors[f"buffer/{name}"])


def identity(job: Job) -> str:
    """A digest of what a fit depends on, but for the base model, which the run's folder stands for."""
    parts = [canonical([job.spec.dump(), job.seed, job.stop_after, job.warm, job.protect,
                        None if job.warm_labels is None else [*job.warm_labels]])]
    parts += [f"{example.split} {encode(example)}" for rows in (job.train, job.validation, job.replay)
              for example in rows]
    parts += [canonical([len(job.replay), {name: list(names) for name, names in job.parts.items()},
                         dict(job.part_of)])]
    soft = dict(job.soft or {})
    teacher = {} if job.teacher is None else dict(job.teacher.logits)
    if job.teacher is not None:
        parts.append(f"{job.teacher.temperature} {job.teacher.alpha}")
    for values in (soft, teacher):
        parts += [f"{name} {np.asarray(values[name], dtype=np.float32).tobytes().hex()}" for name in sorted(values)]
    return digest(*parts, length=40)
