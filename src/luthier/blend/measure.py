"""The sweep along the line, the table, and the blend that is written."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.blend.base import PAGE, TABLE, Blend
from luthier.blend.front import Point, dominated, knee
from luthier.blend.scores import LabelScores, TextScores, parent, rows_of
from luthier.errors import ModelError
from luthier.evaluate.retention import Retention
from luthier.progress import Progress, Silent
from luthier.spec import parse
from luthier.store import Artifact, Store, canonical, write_json, write_text
from luthier.task import Task
from luthier.train import runtime
from luthier.train.base import Train
from luthier.train.blends import RUN, Kitchen, Mix
from luthier.train.past import FOLDER, LOGITS, load_past
from luthier.types import Example

SCORES = "scores.json"


@dataclass
class Bench:
    """One run, the models that it can be mixed with, and the rows that mixes are measured on."""

    run: Artifact
    task: Task
    space: Any
    """luthier.train.blends._space.Space"""
    scores: LabelScores | TextScores
    others: Sequence[str]
    folder: Path
    threads: int
    known: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures by mix; on disk as well, so that a killed sweep goes on."""

    def score(self, mix: Mix, *, only_new: bool = False) -> dict[str, float]:
        key = canonical([sorted(mix.items()), only_new])
        if key not in self.known:
            with runtime.settings(threads=self.threads, deterministic=True, seed=0):
                self.known[key] = self.scores(self.space.open(mix), only_new=only_new)
            write_json(self.folder / SCORES, self.known)
        return self.known[key]


def open_bench(folder: Path, *, run: Artifact, model: Artifact, data: Artifact, others: Mapping[str, Artifact],
               task: Task, spec: Blend, store: Store, root: Path, retention: Retention,
               old: Sequence[Example] | None, progress: Progress) -> Bench:
    """ModelError where the model that training began from is gone, or has other weights."""
    start = parent(run.inputs.get("start"), store)
    if start is None and run.inputs.get("start"):
        raise ModelError(f"run {run.id} began from {run.inputs['start']}, which is no longer in {store.root}, so there "
                         "is nothing to blend with")
    trained = parse(Train, dict(run.spec), local=root)
    rows = rows_of(run, data, task, store, most=spec.max_rows, old=old)
    scores: LabelScores | TextScores
    if task.labelled:
        space, scores = _labelled(run, model, data, start, others, rows, trained, store, root)
    else:
        from luthier.adapt.base import read_facts
        from luthier.train.blends._adapters import AdapterSpace
        from luthier.train.blends._space import FullSpace

        kinds = {"lora": AdapterSpace, "full": FullSpace}
        method = read_facts(model)["method"]["kind"]
        if method not in kinds:
            raise ModelError(f"blends are for the methods lora and full; run {run.id} trained with '{method}'")
        space = kinds[method](run, model, start, others)
        scores = TextScores(task, rows, retention, root, progress)
    file = folder / SCORES
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return Bench(run, task, space, scores, [*others], folder, trained.threads, known)


def _labelled(run: Artifact, model: Artifact, data: Artifact, start: Artifact | None, others: Mapping[str, Artifact],
              rows: Any, trained: Train, store: Store, root: Path) -> tuple[Any, LabelScores]:
    from luthier.adapt.base import read_facts
    from luthier.train.base import open_tuned_labels
    from luthier.train.blends._space import LabelSpace
    from luthier.train.labelled.run import job_of

    with tempfile.TemporaryDirectory(prefix="luthier-blend-") as nowhere:
        job = job_of(Path(nowhere), model, data, trained, cache=store.cache("features"), root=root, progress=Silent(),
                     watch=None, start=start)
    lora = read_facts(model)["method"]["kind"] == "lora"
    space = LabelSpace(run, lambda: open_tuned_labels(run, root=root), lambda: job.open(job.seed), others, lora=lora)
    return space, LabelScores(space.model.task, space.model.labels, rows, job.parts, job.part_of)


def measure(folder: Path, bench: Bench, spec: Blend, progress: Progress) -> dict[str, Any]:
    """Score every point, write the table and its page; returns the summary."""
    from luthier.blend.page import render

    method: Any = spec.method
    new, old = bench.scores.new, bench.scores.old
    kitchen = Kitchen(others=bench.others, score=lambda mix: new.worth(bench.score(mix, only_new=True)["new"]))
    end = method.end(kitchen)
    rows = []
    with progress.track("blends", len(spec.points), unit="blends") as bar:
        for share in spec.points:
            mix = method.mix(share, end)
            rows.append({"share": share, "mix": dict(mix), **bench.score(mix)})
            bar.advance()
    points = [Point(row["share"], new.worth(row["new"]), old.worth(row["old"]) if old else None) for row in rows]
    found = knee(points)
    for row, worse, distance in zip(rows, dominated(points), found.distances):
        row |= {"dominated": worse, "distance": distance}
    table = {
        "run": f"{bench.run.stage}/{bench.run.id}", "method": method.dump(), "end": dict(end), "points": rows,
        "new": new.dump(), "old": old.dump() if old else None, "knee": found.share, "why": found.sentence,
        "members": [{"run": bench.run.id if name == RUN else name, "joined": name in end,
                     "new": bench.score({name: 1.0}, only_new=True)["new"]}
                    for name in (RUN, *bench.others)] if bench.others else []}
    write_json(folder / TABLE, table)
    write_text(folder / PAGE, render(table))
    (folder / SCORES).unlink(missing_ok=True)
    progress.say(f"  proposed: a = {found.share:g}: {found.sentence}")
    return {"knee": found.share, "why": found.sentence, "method": method.kind, "points": len(rows)}


def write(folder: Path, bench: Bench, spec: Blend, table: Mapping[str, Any], share: float, progress: Progress
          ) -> dict[str, Any]:
    """Save the mix at `share` with what is carried on; returns the summary, which reads like a run's."""
    method: Any = spec.method
    mix = method.mix(share, table["end"])
    shutil.rmtree(folder / "best", ignore_errors=True)
    bench.space.save(mix, folder / "best")
    _remember(folder, bench, mix)
    row = next(row for row in table["points"] if row["share"] == share)
    first, last = table["points"][0], table["points"][-1]
    run = bench.run.summary
    summary: dict[str, Any] = {
        "at": share, "method": method.kind, "mix": dict(mix), "why": table["why"] if spec.at == "auto" else "as set",
        "new": {"start": first["new"], "blend": row["new"], "trained": last["new"], **table["new"]},
        "old": {"start": first["old"], "blend": row["old"], "trained": last["old"], **table["old"]}
        if table["old"] else None,
        "steps": run.get("steps"), "best_step": 0 if share == 0 else run.get("best_step"),
        "strategy": run.get("strategy", "once"), "validation_before": run.get("validation_before"),
        "validation_best": row.get("new_loss", row["new"]), "gap": None,
    }
    if bench.task.labelled:
        summary["validation"] = {"metric": table["new"]["metric"], "value": row["new"],
                                 "better": table["new"]["better"], "n": table["new"]["n"]}
    return summary


def _remember(folder: Path, bench: Bench, mix: Mix) -> None:
    """What the run kept for a later training; the logits of kept rows are this model's."""
    source = bench.run.path / FOLDER
    if not source.is_dir():
        return
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    shutil.copytree(source, folder / FOLDER)
    past = load_past(source, lambda: None)
    if not past.logits or dict(mix) == {RUN: 1.0}:
        return
    import torch
    from safetensors.torch import save_file

    from luthier.adapt import predict

    model = bench.space.open(mix)
    rows = [row for row in past.rows if row.id in past.logits]
    values = predict.logits(model, model.rows(rows))
    save_file({row.id: torch.from_numpy(value).float().contiguous() for row, value in zip(rows, values)},
              folder / FOLDER / LOGITS)
