"""Features of the untouched base model for the rows of several fits: computed once, cached, shared by all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from luthier.adapt import predict
from luthier.adapt.backbones.base import Row
from luthier.adapt.network import HEAD, LabelModel
from luthier.train.labelled.base import Job, Pool
from luthier.train.labelled.warm import as_rows, can_warm
from luthier.train.plans import trained
from luthier.types import Example


def learns_head_only(job: Job, model: LabelModel) -> bool:
    """Whether the backbone stands still and sees every row as it is, so that finished features do in its place."""
    groups = [group for group, names in model.groups.items()
              if any(model.module.get_parameter(name).requires_grad for name in names)]
    spec = job.spec
    return trained(spec.plan, groups) == {HEAD} and not spec.augments and spec.mix is None \
        and not model.module.pool_trains and model.task.type != "tag"


def pooled(job: Job, examples: Iterable[Example]) -> Job:
    """The job with the features of all these rows, where its fits need features; otherwise the job as it is."""
    unique = {example.id: example for example in examples}
    if job.pool is not None and unique.keys() <= job.pool.vectors.keys():
        return job
    model = job.open(job.seed)
    head_only = learns_head_only(job, model)
    if not model.fingerprint or not (head_only or (job.warm and can_warm(model))):
        return job
    rows = model.rows([*unique.values()], targets=False)
    found = predict.features(model, rows, cache=job.cache, progress=job.progress, what="features of all rows")
    return job.but(pool=Pool(fingerprint=model.fingerprint, vectors=dict(zip(unique, found)), head_only=head_only))


def rows_for(job: Job, model: LabelModel, examples: Sequence[Example]) -> list[Row]:
    """Rows for a model that one of the job's fits made (or several together), with their targets: finished features
    where its backbone is the base model's."""
    rows = model.rows(examples)
    pool = job.pool
    if pool is None or not pool.head_only or not all(row.id in pool.vectors for row in rows):
        return rows
    return as_rows(rows, np.stack([pool.vectors[row.id] for row in rows])) if rows else rows


def features_of(job: Job, model: LabelModel, rows: Sequence[Row]) -> np.ndarray:
    """float32 [rows, width]: from the job's pool where that holds them all, else computed (and cached)."""
    pool = job.pool
    if pool is not None and pool.fingerprint == model.fingerprint and all(row.id in pool.vectors for row in rows):
        return np.stack([pool.vectors[row.id] for row in rows])
    return predict.features(model, rows, cache=job.cache, progress=job.progress,
                            what=f"features{job.note and ', ' + job.note}")
