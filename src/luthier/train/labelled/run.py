"""The `train` stage for labelled tasks: from artifacts to a job, through a strategy, to `best/`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier.adapt.base import read_facts
from luthier.adapt.grow import grown
from luthier.adapt.labelled import (
    Opening,
    label_names,
    load_label_model,
    open_label_model,
    outputs_of,
    save_label_model,
)
from luthier.adapt.network import LabelModel, texts_of
from luthier.errors import DataError
from luthier.prepare.base import read_examples
from luthier.prepare.labels import read_labels
from luthier.progress import Progress
from luthier.store import Artifact, Cache, write_json
from luthier.task import Task
from luthier.train import runtime
from luthier.train.base import Found, Train
from luthier.train.labelled.base import Job
from luthier.train.labelled.fit import fit_once, probe_once
from luthier.train.labelled.replayed import replayable, still_valid
from luthier.train.past import FOLDER, check_start, load_past, save_past
from luthier.train.run import environment
from luthier.train.seams import Watch
from luthier.types import Example


def run_labelled(folder: Path, model: Artifact, data: Artifact, spec: Train, *, cache: Cache, root: Path,
                 progress: Progress, watch: Watch | None = None, start: Artifact | None = None) -> dict[str, Any]:
    """Fill `folder` (continuing what an earlier, killed call left there); returns the summary. `start` is the train
    artifact of the model to go on from."""
    with runtime.settings(threads=spec.threads, deterministic=spec.deterministic, seed=spec.seed), \
            warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        job = job_of(folder, model, data, spec, cache=cache, root=root, progress=progress, watch=watch,
                   start=start)
        fitted = fit_once(job) if spec.strategy is None else spec.strategy.run(fit_once, job)
        save_label_model(fitted.model, folder / "best")
        if fitted.memory is not None:
            save_past(folder / FOLDER, **fitted.memory)
        for name, content in fitted.artifacts.items():
            write_json(folder / name, content)
        for file in fitted.scratch:
            file.unlink(missing_ok=True)
        write_json(folder / "environment.json", environment(runtime.start()))
        if fitted.value is not None:
            progress.say(f"  validation {fitted.model.task.metric} {fitted.value:.4f}"
                         + (f", {fitted.summary['gap']['sentence']}" if fitted.summary.get("gap") else ""))
        return {"strategy": spec.strategy.kind if spec.strategy else "once", **fitted.summary}


def probe_labelled(folder: Path, model: Artifact, data: Artifact, spec: Train,
                   run: Callable[[Callable[[float], float]], Found], *, cache: Cache, root: Path, progress: Progress
                   ) -> Found:
    """See `luthier.train.base.probe_rates`."""
    with runtime.settings(threads=spec.threads, deterministic=spec.deterministic, seed=spec.seed), \
            warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        job = job_of(folder, model, data, spec, cache=cache, root=root, progress=progress, watch=None)
        return probe_once(job, run)


def job_of(folder: Path, model: Artifact, data: Artifact, spec: Train, *, cache: Cache, root: Path,
           progress: Progress, watch: Watch | None, start: Artifact | None = None) -> Job:
    """The training that the artifacts and the spec describe."""
    labels = read_labels(data)
    train = read_examples(data, "train")
    task = Task(**read_facts(model)["task"])

    def usable(example: Example) -> bool:  # a row of none of the classes is there to be recognised as such
        return example.labelled and (task.multi_label or example.labels != ())

    known = [example for example in train if usable(example)]
    if not known:
        raise DataError(f"{data.path} holds no train row with a label; check what prepare dropped, and why")

    texts = () if task.type == "image" else texts_of(known)

    def rooted(found: LabelModel) -> LabelModel:
        if task.type == "image":  # files are named from the project folder, and decoded once
            processor: Any = found.processor
            processor.root, processor.cache = root, Cache(cache.folder.with_name("decoded"))
        return found

    def fresh(seed: int) -> LabelModel:
        return rooted(open_label_model(model, labels, seed=seed, max_length=spec.max_length, texts=texts))

    def opened(seed: int) -> LabelModel:
        if start is None:
            return fresh(seed)
        before = load_label_model(start.path / "best")
        return rooted(grown(before, labels, method=Opening.read(model).method, seed=seed))

    validation = [example for example in read_examples(data, "validation") if usable(example)]
    test = read_examples(data, "test")
    past, replay, none_kept = None, [], True
    if start is not None:
        check_start(start, model)
        lost = [name for name in label_names(start.path / "best") if name not in outputs_of(task, labels)]
        if lost:
            told = ", ".join(lost[:8]) + (" …" if len(lost) > 8 else "")
            progress.say(f"  the data no longer has {len(lost)} of the earlier model's labels, which are given up: "
                         f"{told}")
        kept = load_past(start.path / FOLDER, lambda: rooted(load_label_model(start.path / "best")))
        past = kept.but(rows=still_valid(kept.rows, known, task=task, root=root))
        none_kept = not kept.rows
        if spec.replay is not None:
            replay = replayable(past.rows, [*validation, *test], labels, task=task, root=root, progress=progress)
    if spec.replay is not None and not replay:
        why = "training begins from a base model" if past is None else \
            "the model that training begins from kept no rows (train.keep)" if none_kept else \
            "every stored row is learned now anyway, is held out now, or has a label that the data no longer has"
        progress.say(f"  nothing is replayed: {why}")
    return Job(open=opened, fresh=fresh, train=known, unlabelled=[example for example in train if not example.labelled],
               validation=validation, test=test, spec=spec, folder=folder, cache=cache, root=root, progress=progress,
               watch=watch, seed=spec.seed, past=past, replay=replay, warm=start is None)
