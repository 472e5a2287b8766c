"""The project file as one spec, and the chain of stages.

Each stage's inputs are the artifacts of earlier stages, so `run` is a walk along the chain in which everything that is
already made is found again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import model_validator

from luthier.adapt.base import Adapt
from luthier.blend.base import Blend
from luthier.errors import UsageError
from luthier.evaluate.base import Evaluate
from luthier.index.base import Index
from luthier.index.rag import Rag
from luthier.ingest.base import Ingest
from luthier.prepare.base import Prepare
from luthier.progress import Progress, Silent
from luthier.project.protection import Protection, refuse_kept
from luthier.project.updates import Watch
from luthier.release.base import Release
from luthier.review.base import Review
from luthier.serve.base import Serve
from luthier.spec import Spec, load_yaml
from luthier.store import Artifact, Store, tell_disk_trouble, write_json
from luthier.task import Task
from luthier.train.base import Train
from luthier.triage.base import Triage
from luthier.tune.base import Tune

STAGES = ("ingest", "prepare", "index", "adapt", "train", "blend", "evaluate", "release")
FILE = "luthier.yaml"


class ProjectSpec(Spec):
    """Everything Luthier needs to know about one project; every section may be left out."""

    name: str = "assistant"
    """Name of the project and of its releases: letters, digits, '-' and '_'."""
    task: Task = Task()
    """What the model shall do."""
    ingest: Ingest = Ingest()
    """Reading the documents."""
    prepare: Prepare = Prepare()
    """Cleaning, chunking, removing duplicates, splitting, and making examples."""
    index: Index = Index()
    """The search index that retrieval answers from."""
    rag: Rag = Rag()
    """How retrieved passages are put into a prompt: in training, evaluation and serving alike."""
    adapt: Adapt = Adapt()
    """The base model and which of its weights learn."""
    train: Train = Train()
    """Training and its contract."""
    tune: Tune = Tune()
    """The search for better settings, run by `luthier tune`."""
    blend: Blend = Blend()
    """After training: weights between the model that training began from and the trained one, against forgetting."""
    evaluate: Evaluate = Evaluate()
    """The frozen test, the comparison and the verdict."""
    release: Release = Release()
    """The gate that a model passes before it is served."""
    review: Review = Review()
    """The page on which people decide what the stages are unsure of, run by `luthier review`."""
    serve: Serve = Serve()
    """The server."""
    watch: Watch = Watch()
    """Updates by themselves, run by `luthier watch`."""
    triage: Triage = Triage()
    """Sorting unknown documents: their class, fields and data set, run by `luthier triage`."""
    protection: Protection = Protection()
    """What is known about forgetting; `luthier check` proposes a protection by it."""

    @model_validator(mode="after")
    def _keeps_no_data(self) -> ProjectSpec:
        refuse_kept(self)
        return self


@dataclass(frozen=True)
class Done:
    """One stage of a run, finished."""

    stage: str
    artifact: Artifact | None
    """None for the release, which lives in the releases folder."""
    folder: Path
    fresh: bool
    seconds: float


@dataclass(frozen=True)
class Project:
    """A project folder and its resolved spec."""

    root: Path
    spec: ProjectSpec

    @classmethod
    def open(cls, folder: str | Path = ".", *, overrides: Sequence[str] = ()) -> Project:
        """Read `luthier.yaml` in `folder` (or the file itself); SpecError tells what is wrong and on which line."""
        path = Path(folder)
        if not path.exists():
            raise UsageError(f"no such folder: {path}; create a project with: luthier new NAME")
        file = path if path.is_file() else path / FILE
        return cls(root=file.parent.resolve(), spec=load_yaml(file, ProjectSpec, overrides=overrides))

    @property
    def state(self) -> Path:
        return self.root / ".luthier"

    @property
    def releases(self) -> Path:
        return self.state / "releases"

    @cached_property
    def store(self) -> Store:
        return Store(self.state / "store")

    def run(self, *, to: str = "release", force: bool = False, progress: Progress | None = None) -> Iterator[Done]:
        """Walk the chain up to and including `to`, yielding each stage as it is done.

        Stages that nothing changed for are found in the store. `force` releases in spite of a failed gate (recorded).
        """
        with tell_disk_trouble(self.state):
            self.state.mkdir(parents=True, exist_ok=True)
            ignore = self.state / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        progress = progress or Silent()
        made: dict[str, Artifact] = {}
        for stage in needed(to):
            began = time.monotonic()
            if self.spec.task.labelled and stage in ("ingest", "index"):
                if stage == "ingest":  # the rows of a labelled task are read by prepare's makers
                    made[stage] = self._calls(Silent())[stage](made)
                    self.remember(stage, made[stage])
                if to == stage:
                    raise UsageError(f"the task '{self.spec.task.type}' has no stage '{stage}': its rows are read by "
                                     "prepare; run: luthier prepare")
                continue
            if stage == "blend" and self.spec.blend.at is None:  # the trained model is taken as it is
                if to == stage:
                    raise UsageError("blend.at is null, so there is no blend to make; set it, or run: luthier blend")
                continue
            progress.say(f"[{stage}]", stage=stage)
            if stage == "index" and not made["prepare"].summary["passages"]:
                progress.say("  no documents, so no index; retrieval is left out")
                continue
            if stage == "release":
                folder, fresh = self._release(made, force=force, progress=progress)
                done = Done(stage, None, folder, fresh, time.monotonic() - began)
            else:
                artifact = self.make(stage, made, progress=progress)
                done = Done(stage, artifact, artifact.path, artifact.fresh, time.monotonic() - began)
            yield done

    def _calls(self, progress: Progress) -> dict[str, Callable[[dict[str, Artifact]], Artifact]]:
        spec = self.spec
        common: dict[str, Any] = {"store": self.store, "progress": progress}
        rooted: dict[str, Any] = {**common, "root": self.root}
        from luthier.adapt.base import adapt
        from luthier.blend.base import blend
        from luthier.evaluate.base import evaluate
        from luthier.index.base import index
        from luthier.ingest.base import ingest
        from luthier.ingest.forgotten import read_forgotten
        from luthier.prepare.base import prepare
        from luthier.queues import read_decided
        from luthier.train.base import train

        sources = () if spec.task.labelled else spec.ingest.sources
        return {
            "ingest": lambda made: ingest([self.root / source for source in sources], spec.ingest,
                                          forgotten=read_forgotten(self.root),
                                          corrections=read_decided(self.root, "corrections"), **common),
            "prepare": lambda made: prepare(made["ingest"], spec.task, spec.prepare, rag=spec.rag,
                                            index=spec.index, **rooted),
            "index": lambda made: index(made["prepare"], spec.index, **rooted),
            "adapt": lambda made: adapt(spec.task, spec.adapt, **rooted),
            "train": lambda made: train(made["adapt"], made["prepare"], spec.train, **rooted),
            "blend": lambda made: blend(made["train"], model=made["adapt"], data=made["prepare"], spec=spec.blend,
                                        retention=spec.evaluate.retention, **rooted),
            "evaluate": lambda made: evaluate(data=made["prepare"], index=made.get("index"), model=made["adapt"],
                                              run=tuned_of(made), task=spec.task, rag=spec.rag, spec=spec.evaluate,
                                              **rooted),
        }

    def make(self, stage: str, made: dict[str, Artifact], *, progress: Progress) -> Artifact:
        """One stage but the last, from the artifacts of the stages that it stands on, which it joins in `made`."""
        made[stage] = self._calls(progress)[stage](made)
        self.remember(stage, made[stage])
        return made[stage]

    def _release(self, made: dict[str, Artifact], *, force: bool, progress: Progress) -> tuple[Path, bool]:
        from luthier.release.base import release

        spec = self.spec
        named = spec.release if spec.release.name else spec.release.but(name=spec.name)
        before = set(self.releases.glob("*/*")) if self.releases.is_dir() else set()
        folder = release(report=made["evaluate"], run=tuned_of(made), model=made["adapt"], index=made.get("index"),
                         data=made["prepare"], task=spec.task, rag=spec.rag, spec=named, store=self.store,
                         releases=self.releases, force=force, root=self.root, progress=progress)
        return folder, folder not in before

    def remember(self, stage: str, artifact: Artifact) -> None:
        """Note the newest artifact of each stage: what `show`, `trace` and `gc` start from."""
        latest = self.latest()
        if latest.get(stage) != artifact.id:
            with tell_disk_trouble(self.state):
                write_json(self.state / "latest.json", {**latest, stage: artifact.id})

    def latest(self) -> dict[str, str]:
        """Stage → id of the newest artifact."""
        try:
            return json.loads((self.state / "latest.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}

    def artifact(self, stage: str) -> Artifact:
        """The newest artifact of a stage; UsageError if that stage has not run yet."""
        found = self.store.find(stage, self.latest().get(stage, "-"))
        if found is None:
            raise UsageError(f"'{stage}' has not run in {self.root} yet; run: luthier {stage}")
        return found


def tuned_of(made: Mapping[str, Artifact]) -> Artifact:
    """What is evaluated and released as the tuned model: the blend where there is one, else the run."""
    return made.get("blend", made["train"])


def needed(to: str) -> list[str]:
    """The stages that `to` stands on, in order, itself last."""
    inputs: dict[str, tuple[str, ...]] = {
        "ingest": (), "prepare": ("ingest",), "index": ("prepare",), "adapt": (), "train": ("adapt", "prepare"),
        "blend": ("train",), "evaluate": ("blend", "index"), "release": ("evaluate",),
    }
    if to not in inputs:
        raise UsageError(f"unknown stage '{to}'; stages: {', '.join(STAGES)}")
    wanted, queue = {to}, [to]
    while queue:
        for before in inputs[queue.pop()]:
            if before not in wanted:
                wanted.add(before)
                queue.append(before)
    return [stage for stage in STAGES if stage in wanted]


def tree_size(folder: Path) -> int:
    """Bytes in a folder, following no links."""
    total = 0
    for here, _, names in os.walk(folder):
        total += sum((Path(here) / name).lstat().st_size for name in names)
    return total


def describe(done: Done) -> dict[str, Any]:
    """One finished stage as JSON data."""
    summary = dict(done.artifact.summary) if done.artifact else {}
    return {"stage": done.stage, "id": done.artifact.id if done.artifact else done.folder.name,
            "folder": str(done.folder), "made": done.fresh, "seconds": round(done.seconds, 2), "summary": summary}
