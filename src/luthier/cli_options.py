"""What the modules of the `luthier` command share: options, and how results are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from luthier.progress import Progress
    from luthier.project import Project

ProjectDir = Annotated[Path, typer.Option("--project", "-C", help="Project folder, or its luthier.yaml.")]
Settings = Annotated[list[str] | None, typer.Option(
    "--set", "-s", metavar="SECTION.FIELD=VALUE", help="Override a field of luthier.yaml for this call; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout, progress as JSON lines on stderr.")]
HERE = Path(".")


def open_project(project: Path, settings: list[str] | None) -> Project:
    """The project, with overrides."""
    from luthier.project import Project

    return Project.open(project, overrides=settings or ())


def progress_of(as_json: bool) -> Progress:
    """On stderr, for a person or for a machine."""
    from luthier.progress import JsonLines, Terminal

    return JsonLines() if as_json else Terminal()


def show(data: Any, as_json: bool, text: str) -> None:
    """The result on stdout."""
    print(json.dumps(data, ensure_ascii=False, indent=1, default=str) if as_json else text)
