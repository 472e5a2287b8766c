"""`luthier blend`: the Pareto table of the newest run, and what is proposed. Changes nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.blend.base import PAGE, read_table, sweep
from luthier.blend.scores import parent
from luthier.errors import UsageError
from luthier.progress import Progress
from luthier.project.base import Project
from luthier.store import Artifact


@dataclass(frozen=True)
class Swept:
    """A table and where it lies."""

    data: Mapping[str, Any]
    folder: Path


def blends(project: Project, *, progress: Progress) -> Swept:
    """Measure the blends of the newest run with the settings in `blend`; UsageError where nothing has been trained."""
    run = project.artifact("train")
    made = sweep(run, model=_input(project, run, "model"), data=_input(project, run, "data"), spec=project.spec.blend,
                 store=project.store, root=project.root, retention=project.spec.evaluate.retention, progress=progress)
    return Swept(read_table(made), made.path)


def _input(project: Project, run: Artifact, name: str) -> Artifact:
    found = parent(run.inputs.get(name), project.store)
    if found is None:
        raise UsageError(f"the run {run.id} stands on {run.inputs.get(name)}, which is no longer there; run: luthier "
                         "train")
    return found


def text_of(found: Swept, written: Sequence[str]) -> str:
    """The table for people, and what to do with it."""
    from luthier.blend.table import text_of as table

    use = ["Written:", *(f"  {line}" for line in written), "Use it:  luthier run"] if written else [
        "Use it:  luthier blend --apply, then luthier run"]
    return "\n".join([table(found.data), "", *use, f"Front:   {found.folder / PAGE}"])
