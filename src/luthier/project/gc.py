"""`luthier gc`: remove what no release and no latest run reaches."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from luthier.project.base import Project, tree_size
from luthier.store import Artifact


@dataclass(frozen=True)
class Garbage:
    folder: Path
    bytes: int
    why: str


def garbage(project: Project) -> list[Garbage]:
    """Artifacts that neither a release nor the latest run stands on, and part folders that nothing will resume."""
    kept = reachable(project)
    found = []
    root = project.store.root
    for stage in sorted(root.iterdir()) if root.is_dir() else ():
        if stage.name == "cache" or not stage.is_dir():
            continue
        for folder in sorted(stage.iterdir()):
            if not folder.is_dir() or (stage.name, folder.name) in kept:
                continue
            if folder.name.endswith(".part"):
                found.append(Garbage(folder, tree_size(folder), "unfinished"))
            else:
                found.append(Garbage(folder, tree_size(folder), "not reached by a release or the latest run"))
    return found


def reachable(project: Project) -> set[tuple[str, str]]:
    """(stage, id) of every artifact that a release or the latest run stands on, inputs of inputs included."""
    queue = [(stage, id) for stage, id in project.latest().items()]
    for record in project.releases.glob("*/*/release.json") if project.releases.is_dir() else ():
        lineage = json.loads(record.read_text("utf-8")).get("lineage", {})
        queue += [(stage, id.rpartition("/")[2]) for stage, id in lineage.items() if isinstance(id, str)]
    kept: set[tuple[str, str]] = set()
    while queue:
        here = queue.pop()
        if here in kept:
            continue
        kept.add(here)
        artifact = project.store.find(*here)
        if artifact is not None:
            queue += parents(artifact)
    return kept


def parents(artifact: Artifact) -> list[tuple[str, str]]:
    """(stage, id) of the artifacts that this one was made from."""
    found = []
    stack: list[object] = [artifact.inputs]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, str) and value.count("/") == 1:
            stage, _, id = value.partition("/")
            if len(id) == 16 and all(letter in "0123456789abcdef" for letter in id):
                found.append((stage, id))
    return found


def collect(project: Project, rubbish: list[Garbage]) -> int:
    """Delete; returns the bytes freed. A part folder whose lock is held belongs to a running process and stays."""
    from filelock import FileLock, Timeout

    freed = 0
    for item in rubbish:
        lock = FileLock(item.folder.with_name(item.folder.name.removesuffix(".part") + ".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(item.folder)
                freed += item.bytes
        except Timeout:
            continue
        Path(lock.lock_file).unlink(missing_ok=True)
    return freed
