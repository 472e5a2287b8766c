"""The commands on prepared data: `luthier data show`, `find`, `dropped`, `browse` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli_options import HERE, Json, ProjectDir, Settings, open_project, show

data = typer.Typer(no_args_is_help=True, help="Look into prepared data: rows, drops, lineage; export it.")
Count = Annotated[int, typer.Option("--count", "-n", min=0, help="At most so many rows.")]
SplitName = Annotated[str | None, typer.Option("--split", help="train, validation or test; all of them if left out.")]


@data.command(name="show")
def show_data(project: ProjectDir = HERE, settings: Settings = None, count: Count = 3, as_json: Json = False) -> None:
    """Count rows by split, step, source and label, drops by reason, and show the first rows of each split."""
    from luthier.project.data import summary, text_of_summary

    found = summary(open_project(project, settings), count)
    show(found, as_json, text_of_summary(found))


@data.command()
def find(
    text: Annotated[str, typer.Argument(help="Text to look for, case aside.")],
    project: ProjectDir = HERE,
    settings: Settings = None,
    split: SplitName = None,
    count: Count = 20,
    as_json: Json = False,
) -> None:
    """Find the examples, passages and dropped items that hold a text."""
    from luthier.project.data import find as search
    from luthier.project.data import text_of_found

    found = search(open_project(project, settings), text, split=_split(split), count=count)
    show(found, as_json, text_of_found(found))


@data.command()
def dropped(
    project: ProjectDir = HERE,
    settings: Settings = None,
    step: Annotated[str | None, typer.Option(help="Only what this step or maker dropped.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only what was dropped for this reason.")] = None,
    count: Count = 50,
    as_json: Json = False,
) -> None:
    """List what was dropped, by which step, and why."""
    from luthier.project.data import dropped as list_drops
    from luthier.project.data import text_of_dropped

    found = list_drops(open_project(project, settings), step=step, reason=reason, count=count)
    show(found, as_json, text_of_dropped(found))


@data.command()
def browse(
    project: ProjectDir = HERE,
    settings: Settings = None,
    to: Annotated[Path | None, typer.Option("--to", help="File to write; .luthier/lineage.html if left out.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="At most so many rows.")] = 20_000,
    as_json: Json = False,
) -> None:
    """Write one page with every example and dropped item and its source, to search and filter in a browser."""
    from luthier.project.browse import browse as write

    done = write(open_project(project, settings), to, count=count)
    show(done.data(), as_json, done.text())


@data.command()
def export(
    to: Annotated[Path, typer.Option("--to", help="File or folder to write.")],
    format: Annotated[str, typer.Option("--format", "-f", help="chat, alpaca, sharegpt, jsonl, csv, parquet, hf, "
                                        "conll, image_folder, coco, or your own as my_module:MyFormat.")],
    project: ProjectDir = HERE,
    settings: Settings = None,
    what: Annotated[str, typer.Option(help="examples, passages or dropped.")] = "examples",
    split: SplitName = None,
    option: Annotated[list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="A setting of the format, "
                                                     "such as excel=true; repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier export wrote there.")] = False,
    as_json: Json = False,
) -> None:
    """Write prepared data for other tools, each row with its lineage."""
    from luthier.project.export import export_data, text_of

    done = export_data(open_project(project, settings), to, format=format, what=what,  # type: ignore[arg-type]  # checked
                       split=_split(split), options=option or (), overwrite=overwrite)
    show(done.data(), as_json, text_of(done))


def _split(name: str | None):
    from luthier.errors import UsageError

    if name not in (None, "train", "validation", "test"):
        raise UsageError(f"'{name}' is no split; write train, validation or test")
    return name


def add_commands(app: typer.Typer) -> None:
    """Put the commands into the app."""
    app.add_typer(data, name="data", rich_help_panel="Look")
