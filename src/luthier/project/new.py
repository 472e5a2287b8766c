"""`luthier new`: a project folder that runs as soon as documents, or labelled data, lie in it."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from luthier.errors import UsageError
from luthier.project.base import FILE, ProjectSpec
from luthier.project.yaml_file import commented_yaml, schema_text
from luthier.store import tell_disk_trouble, write_text
from luthier.task import LABELLED, Task, TaskType

IGNORE = """\
# Made by Luthier from what is beside it; can always be made again.
.luthier/
"""
MODELS: dict[TaskType, str] = {"classify": "starter:encoder", "tag": "starter:encoder", "embed": "starter:encoder",
                               "image": "starter:image"}
_WAITING = {"classify": "data/data.csv", "tag": "data/data.jsonl", "embed": "data/data.jsonl", "image": "data/images"}
"""Where the project expects data that is not there yet."""


@dataclass(frozen=True)
class Created:
    """A new project folder."""

    folder: Path
    written: tuple[Path, ...]
    told: tuple[str, ...]
    """What was found in the data, for a person."""
    todo: tuple[str, ...]
    """Commands to run before `luthier check`, such as copying documents into the folder."""


def new(folder: Path, *, task: TaskType = "assistant", documents: Path | None = None, data: Path | None = None,
        test: Path | None = None, columns: Mapping[str, str] | None = None) -> Created:
    """Write the project files; `documents`, or labelled `data` (and rows only for the `test`), are copied into it.

    The labelled tasks get the maker and the columns that the data was found to need (`columns` names them where they
    cannot be told), and the starter model of the task. Refuses a folder that already holds a project; every other file
    in it is left alone.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-") or "assistant"
    if (folder / FILE).exists():
        raise UsageError(f"{folder / FILE} exists already; choose another folder or edit that file")
    if folder.exists() and not folder.is_dir():
        hint = "; to make a project of labelled data, name the task, such as --task classify"
        raise UsageError(f"{folder} is a file, not a folder{hint if task not in LABELLED else ''}")
    if documents is not None and not documents.is_dir():
        raise UsageError(f"no such folder of documents: {documents}")
    _refuse_mixture(task, documents, data, test, columns)
    for source in (documents, data, test):
        if source is not None and folder.resolve().is_relative_to(source.resolve()):
            noun = "documents" if source is documents else "data"
            raise UsageError(f"the project {folder} would lie inside its own {noun} {source}; choose another folder")
    told: list[str] = []
    spec = ProjectSpec(name=name, task=Task(type=task))
    copies: list[tuple[Path, Path, tuple[Path, ...]]] = []
    todo: tuple[str, ...] = ()
    if task in LABELLED:
        spec, copies = _labelled(name, task, data, test, columns or {}, told)
        todo = () if data else (f"cp YOUR_DATA {folder}/{_WAITING[task]}",)
    elif documents is None:
        todo = (f"cp -r YOUR_DOCUMENTS/. {folder}/documents/",)
    written = []
    with tell_disk_trouble(folder.parent):
        (folder / ("data" if task in LABELLED else "documents")).mkdir(parents=True, exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        for file, text in ((FILE, commented_yaml(spec)), ("luthier.schema.json", schema_text()),
                           (".gitignore", IGNORE)):
            if not (folder / file).exists():
                write_text(folder / file, text)
                written.append(folder / file)
        if documents is not None:
            shutil.copytree(documents, folder / "documents", dirs_exist_ok=True, symlinks=True)
        for source, to, files in copies:
            _copy(source, folder / to, files)
    return Created(folder, tuple(written), tuple(told), todo)


def task_named(name: str) -> TaskType:
    """The task type of that name; UsageError with a suggestion for an unknown one."""
    known = get_args(TaskType)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(f"unknown task '{name}'; " + (f"did you mean '{near[0]}'?" if near else
                                                       f"tasks: {', '.join(known)}"))
    return cast(TaskType, name)


def place_of(given: Path, task: TaskType) -> tuple[Path, Path | None]:
    """(project folder, data) for the one path of `luthier new --task classify PATH`.

    A file, or a folder with something in it, is data: its project is made in the working folder and named after it
    (`data.csv` → `data`), with the task behind the name where that folder is taken. Any other path is the project's.
    """
    if task not in LABELLED or not given.exists() or (given / FILE).exists():
        return given, None
    if given.is_dir() and not any(given.iterdir()):
        return given, None
    name = given.stem if given.is_file() else given.resolve().name
    folder = Path(name)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    return (Path(f"{name}-{task}") if taken else folder), given


def _refuse_mixture(task: TaskType, documents: Path | None, data: Path | None, test: Path | None,
                    columns: Mapping[str, str] | None) -> None:
    if task in LABELLED and documents is not None:
        raise UsageError(f"the task '{task}' learns from labelled data; give it as --data, not as --documents")
    if task not in LABELLED and (data is not None or test is not None):
        raise UsageError(f"the task '{task}' learns from documents; give them as --documents, or name a task for "
                         f"labelled data: --task {', '.join(LABELLED)}")
    if data is None and (test is not None or columns):
        raise UsageError("--test and --column need --data (the rows to train on)")


def _labelled(name: str, task: TaskType, data: Path | None, test: Path | None, columns: Mapping[str, str],
              told: list[str]) -> tuple[ProjectSpec, list[tuple[Path, Path, tuple[Path, ...]]]]:
    """The project's spec, and (source, place in the project, files or all) of what is to be copied."""
    from luthier.project.detect import detect

    makers: list[dict[str, Any]] = []
    copies: list[tuple[Path, Path, tuple[Path, ...]]] = []
    about: dict[str, Any] = {"type": task}
    if data is None:
        makers.append({"kind": "image_folders" if task == "image" else "rows", "path": _WAITING[task]})
    for source, split in ((data, None), (test, "test")):
        if source is None:
            continue
        found = detect(task, source, columns)
        told += found.told if split is None else [f"test: {line}" for line in found.told]
        to = Path("data")
        if source.is_file() or test is not None:
            to /= _unique(source.name if source.is_file() else source.resolve().name, copies)
        copies.append((source, to, found.files))
        makers.append({"kind": found.kind, "path": (to / found.inside).as_posix(), **found.fields,
                       **({"split": split} if split else {})})
        about.update(found.task)
    spec = ProjectSpec.model_validate({
        "name": name, "task": about, "ingest": {"sources": []}, "prepare": {"makers": makers},
        "adapt": {"model": MODELS[task], "method": {"kind": "full"}}})
    return spec, copies


def _unique(name: str, copies: list[tuple[Path, Path, tuple[Path, ...]]]) -> str:
    return f"test-{name}" if any(to.name == name for _, to, _ in copies) else name


def _copy(source: Path, to: Path, files: tuple[Path, ...]) -> None:
    if source.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists() or not to.samefile(source):
            shutil.copy2(source, to)
    elif not files:
        shutil.copytree(source, to, dirs_exist_ok=True, symlinks=True)
    for file in files if source.is_dir() else ():
        target = to / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
