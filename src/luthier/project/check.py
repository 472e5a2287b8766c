"""`luthier check`: what a run would do, what it would cost, and what is wrong, before anything is spent.

The chain is walked with a store that refuses to make anything, so "kept" and "would run" are the truth and not a guess.
Forecasts multiply the work of a stage (words, tokens, questions) by this machine's own past rates, and say how far
past forecasts were off; before the first run they use rates measured on two cores of a 2023 server.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.errors import LuthierError, ModelError
from luthier.models.sources import cache_folder, resolve
from luthier.project.asking import teachers
from luthier.project.base import STAGES, Project, needed
from luthier.project.forecast import UNITS, duration, past, pictures, rates_of, seconds_of, words_of, work_of
from luthier.project.protection import Advice, facts_of, recommend
from luthier.store import Artifact, Store


class WouldRun(Exception):
    """A stage is not in the store."""


class DryStore(Store):
    """Finds, never makes."""

    makes = False

    def build(self, stage: str, *, version: int, spec: Any, inputs: Mapping[str, Any],
              make: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        found = self.find(stage, self.key(stage, version=version, spec=spec, inputs=inputs))
        if found is None:
            raise WouldRun(stage)
        return found


@dataclass(frozen=True)
class Step:
    """One stage of the forecast."""

    stage: str
    state: str
    """kept, would run, or would resume."""
    seconds: float | None = None
    work: str = ""


@dataclass(frozen=True)
class Check:
    steps: list[Step]
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    memory_gb: float | None = None
    disk_gb: float | None = None
    protection: Advice | None = None
    """What is proposed against forgetting."""

    def data(self) -> dict[str, Any]:
        return {"steps": [asdict(step) for step in self.steps], "problems": self.problems, "notes": self.notes,
                "memory_gb": self.memory_gb, "disk_gb": self.disk_gb,
                "protection": self.protection.data() if self.protection else None}

    def text(self) -> str:
        lines = []
        for step in self.steps:
            cost = f"about {duration(step.seconds)}" if step.seconds is not None else ""
            lines.append(f"{step.stage:<9} {step.state:<13} {cost:<14} {step.work}".rstrip())
        total = sum(step.seconds or 0 for step in self.steps)
        if any(step.state not in ("kept", "not needed") for step in self.steps):
            lines += ["", f"Together about {duration(total)}" + (
                f", {self.memory_gb:.1f} GB of memory" if self.memory_gb else "") + (
                f", {self.disk_gb:.1f} GB of disk" if self.disk_gb else "") + "."]
        else:
            lines += ["", "Everything is up to date; a run would change nothing."]
        lines += self.notes
        lines += self.protection.lines() if self.protection else []
        lines += ["", *(f"problem: {problem}" for problem in self.problems)] if self.problems else []
        return "\n".join(lines)


def check(project: Project) -> Check:
    """Walk the chain without making anything. Problems are what would stop a run."""
    made: dict[str, Artifact] = {}
    states: dict[str, str] = {}
    problems = _missing(project) or _misfits(project)
    calls = Project(root=project.root, spec=project.spec)
    object.__setattr__(calls, "store", DryStore(project.store.root))
    from luthier.progress import Silent

    stages = calls._calls(Silent())
    for stage in STAGES[:-1]:
        if stage == "index" and (project.spec.task.labelled or (
                "prepare" in made and not made["prepare"].summary["passages"])):
            states[stage] = "not needed"
            continue
        if stage == "blend" and project.spec.blend.at is None:
            states[stage] = "not needed"
            continue
        if any(states[before] not in ("kept", "not needed") for before in needed(stage)[:-1]):
            states[stage] = "would run"
            continue
        try:
            made[stage] = stages[stage](made)
            states[stage] = "kept"
        except WouldRun:
            parts = project.store.root / stage
            resumes = stage == "train" and parts.is_dir() and any(parts.glob("*.part"))
            states[stage] = "would resume" if resumes else "would run"
        except LuthierError as error:
            states[stage] = "cannot run"
            problems += [told for told in [_told(stage, error)] if told not in problems]
    notes: list[str] = []
    if project.spec.task.labelled and states["prepare"] != "kept" and not problems:
        from luthier.prepare.label_glance import glance

        wrong, notes = glance(project.spec.task, project.spec.prepare, store=calls.store, root=project.root)
        problems += [f"prepare: {told}" for told in wrong]
    states["release"] = "kept" if _released(project, made) else "would run"
    work = work_of(project, made)
    steps = []
    for stage in STAGES:
        if states[stage] in ("kept", "not needed") or stage not in work:
            free = states[stage] in ("kept", "not needed", "cannot run")
            steps.append(Step(stage, states[stage], None if free else 20.0))
        else:
            units = work[stage]
            unit = UNITS[stage] if not project.spec.task.labelled else "row passes" if stage == "train" else "rows"
            steps.append(Step(stage, states[stage], seconds_of(project, stage, units, made),
                              f"{units:,.0f} {unit}"))
    if states.get("ingest") == "would run" and not project.spec.task.labelled and not problems:
        pages = pictures(project)
        if pages:
            seconds, told = pages / rates_of(cache_folder())["pictures"], f"{pages:,} page{'s' * (pages > 1)}"
            steps = [replace(step, seconds=(step.seconds or 0) + seconds, work=f"{step.work}, {told} to read from "
                             "pictures") if step.stage == "ingest" else step for step in steps]
    if states["prepare"] not in ("kept", "cannot run"):
        for asked in teachers(project, made, words_of(project, made)):
            notes.append(asked.text()[:1].upper() + asked.text()[1:] + ".")
            steps = [replace(step, seconds=step.seconds + asked.seconds) if step.stage == "prepare" and step.seconds
                     else step for step in steps]
    if project.spec.task.labelled:
        steps = [step for step in steps if step.stage not in ("ingest", "index")]
    if project.spec.blend.at is None:
        steps = [step for step in steps if step.stage != "blend"]
    memory, disk = _room(project)
    if disk and shutil.disk_usage(project.root).free < disk * 1e9:
        problems.append(f"the run needs about {disk:.1f} GB of disk, "
                        f"{shutil.disk_usage(project.root).free / 1e9:.1f} GB are free at {project.root}")
    return Check(steps, problems, [*notes, *past(project)], memory, disk, recommend(facts_of(project, made)))


def _released(project: Project, made: Mapping[str, Artifact]) -> bool:
    if "evaluate" not in made:
        return False
    for file in project.releases.glob("*/*/release.json") if project.releases.is_dir() else ():
        lineage = json.loads(file.read_text("utf-8")).get("lineage", {})
        if str(lineage.get("evaluate", "")).rpartition("/")[2] == made["evaluate"].id:
            return True
    return False


def _missing(project: Project) -> list[str]:
    """Extras and models that the run needs and cannot find."""
    problems = []
    labelled = project.spec.task.labelled
    documents = (("sklearn", "train"),) if labelled else (("pypdfium2", "ingest"), ("bm25s", "index"))
    images = (("PIL", "images"),) if project.spec.task.type == "image" else ()
    private = project.spec.prepare.privacy
    phones = private.rewrites and any(one.kind == "phone" for one in private.recognizers)
    numbers = (("phonenumbers", "privacy"),) if phones else ()
    for module, extra in (*documents, *images, *numbers, ("torch", "train"), ("peft", "train"), ("accelerate", "train"),
                          ("fastapi", "serve")):
        if importlib.util.find_spec(module) is None:
            problems.append(f"the Python package '{module}' is missing; install it with: "
                            f"pip install 'luthier[{extra}]'")
    if not problems and not labelled and not project.spec.index.encoder.startswith("hub:"):
        try:
            resolve(project.spec.index.encoder, purpose="encoder", root=project.root)
        except LuthierError as error:
            problems.append(str(error))
    return problems


def _misfits(project: Project) -> list[str]:
    """Settings that the task cannot honour, and a base model that reads something else: told at once, although the
    stages that would refuse them are hours away."""
    from luthier.prepare.base import refuse_makers
    from luthier.prepare.label_build import refuse_settings
    from luthier.prepare.weak.base import refuse_misfit

    spec = project.spec
    asked: list[tuple[str, Callable[[], object]]] = [
        ("prepare", lambda: refuse_makers(spec.task, spec.prepare.makers)),
        ("prepare", lambda: refuse_misfit(spec.task, spec.prepare.weak)),
        ("train", lambda: spec.train.refuse_misfits(spec.task))]
    if spec.task.labelled:
        asked += [("prepare", lambda: refuse_settings(spec.prepare)), ("adapt", lambda: _refuse_model(project))]
    problems = []
    for stage, ask in asked:
        try:
            ask()
        except LuthierError as error:
            problems.append(_told(stage, error))
    return problems


def _told(stage: str, error: LuthierError) -> str:
    return str(error) if str(error).startswith(f"{stage}.") else f"{stage}: {error}"


def _refuse_model(project: Project) -> None:
    """ModelError where the files beside the weights say that the model reads images and the task texts, or the other
    way round; `adapt` looks closer."""
    source, kind = project.spec.adapt.model, project.spec.task.type
    if source.startswith("hub:"):
        return  # looked at when it is downloaded
    folder = resolve(source, purpose="image" if kind == "image" else "encoder", root=project.root).folder
    words = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"))
    images = (folder / "preprocessor_config.json").is_file()
    if kind == "image" and words and not images:
        raise ModelError(f"model '{source}' reads texts, and the task 'image' needs one that reads images, such as "
                         "starter:image")
    if kind != "image" and (folder / "config.json").is_file() and not words:
        raise ModelError(f"model '{source}' has no tokenizer, so it cannot read texts, which the task '{kind}' needs; "
                         "name a text model, such as starter:encoder")


def _room(project: Project) -> tuple[float | None, float | None]:
    """(memory, disk) in GB from the size of the base model's weights; None for a model that is not here yet."""
    if project.spec.adapt.model.startswith("hub:"):
        return None, None
    task = project.spec.task
    purpose = "chat" if not task.labelled else "image" if task.type == "image" else "encoder"
    try:
        folder = resolve(project.spec.adapt.model, purpose=purpose, root=project.root).folder
    except LuthierError:
        return None, None
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    full = project.spec.adapt.dump()["method"]["kind"] == "full"
    return 2.0 + weights * (6 if full else 4), 0.3 + weights * (6 if full else 2)
