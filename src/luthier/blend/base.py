"""`blend`: after training, weights between the model that training began from and the trained one. No training.

`sweep` measures blends along the line and proposes one (the Pareto table of new skill against old); `blend` writes the
chosen one as an artifact laid out like a run's, which evaluation and release take in the run's place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from luthier.adapt.base import read_facts
from luthier.errors import ModelError, UsageError
from luthier.evaluate.retention import Retention, fingerprint
from luthier.prepare.base import learned
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.blends import BLENDS, Blending
from luthier.train.blends.wise import Wise
from luthier.types import Example, digest, encode

if TYPE_CHECKING:
    from luthier.blend.measure import Bench

VERSION = 1
TABLE, PAGE = "pareto.json", "pareto.html"
Share = Annotated[float, Field(ge=0, le=1)]


class Blend(Spec):
    """A blend of the trained model with the one that training began from, against forgetting."""

    at: Literal["auto"] | Share | None = None
    """Which blend takes the trained model's place in `luthier run`: a share of the way from the model that training
    began from (0) to the trained one (1), or `auto`, the knee of the table; null takes the trained model."""
    method: Annotated[Blending, BLENDS] = Wise()
    """What is blended: `wise` (weights between start and trained model), `lora_scale` (the adapter made smaller) or
    `soup` (the mean of several finished runs, towards the start)."""
    points: tuple[Share, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Shares that the table measures; 0 and 1 always are. Each costs a pass over the rows below."""
    max_rows: int = Field(default=500, ge=10)
    """At most this many validation rows on either side, evenly chosen. General instructions of an assistant are limited
    by evaluate.retention.max_items."""

    @field_validator("points")
    @classmethod
    def _ordered(cls, points: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({0.0, *points, 1.0}))


def sweep(run: Artifact, *, model: Artifact, data: Artifact, spec: Blend, store: Store, root: Path,
          retention: Retention = Retention(), old: Sequence[Example] | None = None,  # noqa: B008
          progress: Progress = Silent()) -> Artifact:
    """Measure blends; the artifact holds `pareto.json` and `pareto.html`, and changes nothing.

    The summary says the proposed share (`knee`), why, and the rows of the table. `old` are rows that stand for the old
    skill; without them they are found by lineage. A killed sweep goes on after the last measured blend. Raises
    DataError without validation rows and ModelError where there is nothing between the two models.
    """
    inputs = _inputs(run, model, data, spec, store, root, retention, old)

    def make(folder: Path) -> dict[str, Any]:
        from luthier.blend.measure import measure

        bench = _bench(folder, run, model, data, spec, store, root, retention, old, progress)
        return measure(folder, bench, spec, progress)

    return store.build("sweep", version=VERSION, inputs=inputs, make=make,
                       spec=spec.but(at=None))


def blend(run: Artifact, *, model: Artifact, data: Artifact, spec: Blend, store: Store, root: Path,
          retention: Retention = Retention(), old: Sequence[Example] | None = None,  # noqa: B008
          progress: Progress = Silent()) -> Artifact:
    """Write the blend at `spec.at` as an artifact that stands in a run's place: `best/`, `memory/` (what the run kept
    for a later training, with this model's logits), `pareto.json` and `pareto.html`.

    `at: auto` takes the knee of `sweep`; a number measures only itself and the two ends. UsageError where `at` is null.
    """
    if spec.at is None:
        raise UsageError("blend.at is null, so the trained model is taken as it is; set a share from 0 to 1, or auto")
    points = spec.points if spec.at == "auto" else (0.0, float(spec.at), 1.0)
    table = sweep(run, model=model, data=data, spec=spec.but(points=points), store=store, root=root,
                  retention=retention, old=old, progress=progress)
    inputs = {**_inputs(run, model, data, spec, store, root, retention, old), "table": table}

    def make(folder: Path) -> dict[str, Any]:
        from luthier.blend.measure import write

        share = float(table.summary["knee"] if spec.at == "auto" else spec.at)  # type: ignore[arg-type]
        bench = _bench(folder, run, model, data, spec, store, root, retention, old, progress)
        for name in (TABLE, PAGE):
            shutil.copyfile(table.path / name, folder / name)
        return write(folder, bench, spec, read_table(table), share, progress)

    return store.build("blend", version=VERSION, spec=spec, inputs=inputs, make=make)


def read_table(artifact: Artifact) -> dict[str, Any]:
    """The content of `pareto.json`."""
    try:
        return json.loads((artifact.path / TABLE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{artifact.path} holds no readable {TABLE}: {error}; delete that folder and blend again"
                         ) from None


def others_of(run: Artifact, spec: Blend, store: Store) -> dict[str, Artifact]:
    """The other runs that are mixed in, by id: those named, or all finished ones from the same base and rows."""
    wanted = spec.method.wants()  # type: ignore[attr-defined]
    if wanted is None:
        return {one.id: one for one in store.artifacts()
                if one.stage == "train" and one.id != run.id and _alike(one, run)}
    found = {}
    for name in wanted:
        id = name.rpartition("/")[2]
        one = store.find("train", id)
        if one is None:
            raise UsageError(f"blend.method.runs: there is no finished run '{name}' in {store.root}; look with: "
                             "luthier show train, or take auto")
        if one.inputs.get("model") != run.inputs.get("model"):
            raise ModelError(f"blend.method.runs: run {id} has another base model than run {run.id}, so their weights "
                             "have no mean")
        if id != run.id:
            found[id] = one
    return found


def _alike(one: Artifact, run: Artifact) -> bool:
    return all(one.inputs.get(name) == run.inputs.get(name) for name in ("model", "data", "start"))


def _inputs(run: Artifact, model: Artifact, data: Artifact, spec: Blend, store: Store, root: Path,
            retention: Retention, old: Sequence[Example] | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {"run": run, "model": model, "data": learned(data)}
    if others := others_of(run, spec, store):
        inputs["others"] = [*others.values()]
    if not _task(model).labelled:
        inputs["general"] = fingerprint(retention, root)["instructions"]
    if old is not None:
        inputs["old"] = digest(*map(encode, old))
    return inputs


def _task(model: Artifact) -> Task:
    return Task(**read_facts(model)["task"])


def _bench(folder: Path, run: Artifact, model: Artifact, data: Artifact, spec: Blend, store: Store, root: Path,
           retention: Retention, old: Sequence[Example] | None, progress: Progress) -> Bench:
    from luthier.blend.measure import open_bench

    if run.inputs.get("model") != f"{model.stage}/{model.id}":
        raise ModelError(f"run {run.id} was trained from {run.inputs.get('model')}, not from {model.stage}/{model.id}")
    found: Mapping[str, Artifact] = others_of(run, spec, store)
    return open_bench(folder, run=run, model=model, data=data, others=found, task=_task(model), spec=spec, store=store,
                      root=root, retention=retention, old=old, progress=progress)
