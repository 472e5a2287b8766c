"""`luthier check`: what a run would do, what it would cost, and what is wrong, before anything is spent.

The chain is walked with a store that refuses to make anything, so "kept" and "would run" are the truth and not a guess.
Forecasts multiply the work of a stage (words, tokens, questions) by this machine's own past rates, and say how far
past forecasts were off; before the first run they use rates measured on two cores of a 2023 server.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from luthier.errors import LuthierError, ModelError
from luthier.models.sources import cache_folder, resolve
from luthier.prepare.makers.conll import SUFFIXES as CONLL
from luthier.project.asking import asking, teachers
from luthier.project.base import STAGES, Done, Project, needed
from luthier.project.protection import Advice, facts_of, recommend
from luthier.store import Artifact, Store
from luthier.task import LABELLED
from luthier.types import read_jsonl

DEFAULT_RATES = {"ingest": 4e5, "prepare": 1200.0, "index": 1500.0, "train": 150.0, "evaluate": 30.0}
"""Units per second: bytes read, words prepared, words embedded, tokens trained, tokens generated."""
UNITS = {"ingest": "bytes", "prepare": "words", "index": "words", "train": "tokens", "evaluate": "generated tokens"}
ROW_RATES = {"prepare": 3000.0, "train": 30.0, "train-head": 150.0, "evaluate": 80.0}
"""The same for labelled tasks, in rows per second: of a table prepared, trained once (`train-head`: by a head on frozen
features, which are computed once), and tested."""
TOKENS_PER_WORD = 1.45


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
            cost = f"about {_duration(step.seconds)}" if step.seconds is not None else ""
            lines.append(f"{step.stage:<9} {step.state:<13} {cost:<14} {step.work}".rstrip())
        total = sum(step.seconds or 0 for step in self.steps)
        if any(step.state not in ("kept", "not needed") for step in self.steps):
            lines += ["", f"Together about {_duration(total)}" + (
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
    work = _work(project, made)
    steps = []
    for stage in STAGES:
        if states[stage] in ("kept", "not needed") or stage not in work:
            free = states[stage] in ("kept", "not needed", "cannot run")
            steps.append(Step(stage, states[stage], None if free else 20.0))
        else:
            units = work[stage]
            unit = UNITS[stage] if not project.spec.task.labelled else "row passes" if stage == "train" else "rows"
            steps.append(Step(stage, states[stage], units / rates_of(cache_folder())[_rate(project, stage)],
                              f"{units:,.0f} {unit}"))
    if states["prepare"] not in ("kept", "cannot run"):
        for asked in teachers(project, made, _bytes(project)):
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
    return Check(steps, problems, [*notes, *_past(project)], memory, disk, recommend(facts_of(project, made)))


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


def _work(project: Project, made: Mapping[str, Artifact]) -> dict[str, float]:
    """Units of work per stage; exact where the stage before is made, estimated from file sizes otherwise."""
    spec = project.spec
    if spec.task.labelled:
        return _row_work(project, made)
    work: dict[str, float] = {"ingest": float(_bytes(project))}
    words = float(made["ingest"].summary["words"]) if "ingest" in made else work["ingest"] / 12
    work["prepare"], work["index"] = words, words
    if "prepare" in made:
        counts = {"train": 0.0, "test": 0.0}
        tokens = 0.0
        for row in read_jsonl(made["prepare"].path / "examples.jsonl"):
            if row["split"] in counts:
                counts[row["split"]] += 1
            if row["split"] == "train":
                text = row["input"] if isinstance(row["input"], str) else " ".join(m["content"] for m in row["input"])
                tokens += TOKENS_PER_WORD * len(f"{text} {row['target'] or ''}".split()) + 30
    else:
        tokens, counts = words * 3.0, {"train": words / 40, "test": words / 250}
    train = spec.train
    work["train"] = tokens * train.epochs
    asked = min(counts["test"], spec.evaluate.max_questions)
    work["evaluate"] = asked * len(spec.evaluate.systems) * spec.evaluate.max_new_tokens * 0.7
    return work


def _rate(project: Project, stage: str) -> str:
    """Name of a stage's rate: labelled tasks work in rows, and each task and base model at its own speed."""
    task = project.spec.task
    if not task.labelled:
        return stage
    head = "-head" if stage == "train" and project.spec.train.plan.kind == "head" else ""
    return f"{stage}{head}:{task.type}"


def _row_work(project: Project, made: Mapping[str, Artifact]) -> dict[str, float]:
    """Rows per stage of a labelled task; before prepare has counted them, lines of a table and files of class folders
    stand for rows."""
    train = project.spec.train
    if "prepare" in made:
        counts = dict(made["prepare"].summary)
    else:
        whole = 0.0
        for maker in project.spec.prepare.makers:
            path = project.root / str(getattr(maker, "path", ""))
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            each = maker.kind in ("text_folders", "image_folders")
            whole += len(files) if each else sum(_rows_in(file) for file in files)
        counts = {"examples": whole, "train": whole * 0.75, "validation": whole * 0.1, "test": whole * 0.15}
    rows = float(counts["train"])
    passes = 1.0 if train.plan.kind == "head" else float(train.epochs)
    return {"prepare": float(counts["examples"]), "train": rows * passes + 2 * passes * float(counts["validation"]),
            "evaluate": rows + float(counts["validation"]) + float(counts["test"])}


def _rows_in(file: Path) -> float:
    """About how many rows a file holds: its lines, or one for every 100 bytes where it has no line for each."""
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return max(1, file.read_bytes().count(b"\n") - (suffix in (".csv", ".tsv")))
    if suffix in CONLL:
        return file.read_bytes().count(b"\n\n") + 1
    return file.stat().st_size / (800 if suffix == ".npz" else 100) if suffix in (
        ".json", ".parquet", ".arrow", ".npz") else 0.0


def _bytes(project: Project) -> int:
    total = 0
    for source in project.spec.ingest.sources:
        folder = project.root / source
        files = folder.rglob("*") if folder.is_dir() else [folder]
        total += sum(file.stat().st_size for file in files if file.is_file())
    return total


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


@cache
def rates_of(folder: Path) -> dict[str, float]:
    """Units per second by stage: the median of the last runs on this machine, or the shipped defaults."""
    found: dict[str, list[float]] = {}
    file = folder / "rates.jsonl"
    if file.is_file():
        for row in read_jsonl(file):
            found.setdefault(row["stage"], []).append(row["units"] / max(row["seconds"], 1e-3))
    rows = {f"{stage}:{task}": rate for stage, rate in ROW_RATES.items() for task in LABELLED}
    return {stage: median(found[stage][-7:]) if found.get(stage) else rate
            for stage, rate in {**DEFAULT_RATES, **rows}.items()}


def record(project: Project, done: Done) -> None:
    """After a stage really ran: note its rate on this machine, and how far the forecast was off."""
    if not done.fresh or done.artifact is None or done.stage not in DEFAULT_RATES:
        return
    made = {stage: artifact for stage, id in project.latest().items()
            if (artifact := project.store.find(stage, id)) is not None}
    units = _work(project, made).get(done.stage, 0.0)
    if units <= 0:
        return
    if done.stage == "prepare" and asking(project):
        return  # a teacher's time is forecast by itself and says nothing about words
    rate = _rate(project, done.stage)
    if rate not in rates_of(cache_folder()):
        return
    forecast = units / rates_of(cache_folder())[rate]
    row = {"stage": rate, "units": units, "seconds": done.seconds, "at": round(time.time())}
    for file, text in ((cache_folder() / "rates.jsonl", row),
                       (project.state / "forecasts.jsonl", {**row, "forecast": forecast})):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(text) + "\n")
        except OSError:
            return  # a forecast is a courtesy: a read-only cache folder must not stop a run


def _past(project: Project) -> list[str]:
    """How far past forecasts in this project were off."""
    file = project.state / "forecasts.jsonl"
    if not file.is_file():
        return ["No run on record here: times are for two cores of a 2023 server and may be off by a factor of 3."]
    rows = list(read_jsonl(file))
    off = [max(row["forecast"], row["seconds"]) / max(min(row["forecast"], row["seconds"]), 1e-3)
           for row in rows if row["seconds"] >= 1]
    if not off:
        return []
    return [f"Past forecasts here were off by a factor of {median(off):.1f} (median of {len(off)} stages)."]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
