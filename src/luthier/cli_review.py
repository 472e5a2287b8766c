"""The command `review`: a person decides what the stages are unsure of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli_options import HERE, Json, ProjectDir, Settings, open_project, show
from luthier.errors import UsageError


def review(
    project: ProjectDir = HERE,
    settings: Settings = None,
    queue: Annotated[str | None, typer.Option(help="corrections, pairs, duplicates, privacy or labels; all of them if "
                                              "left out.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the page; overrides review.port.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Name of the person who decides; the login name if left "
                                           "out.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far people are, and what `luthier run` will "
                                         "change.")] = False,
    export: Annotated[Path | None, typer.Option("--export", help="Write the items, and what was decided, to this "
                                                "file.")] = None,
    import_: Annotated[Path | None, typer.Option("--import", help="Take over the decisions of this file.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="jsonl, label-studio or argilla; an import finds "
                                               "it out by itself.")] = None,
    as_json: Json = False,
) -> None:
    """Decide what the stages are unsure of, on a local page: read lines, pairs, duplicates, personal data, labels."""
    from luthier.project.review import desk_of, serve_review
    from luthier.project.review import status as look
    from luthier.queues import QUEUES
    from luthier.review import exchange

    opened = open_project(project, settings)
    if queue is not None and queue not in QUEUES:
        raise UsageError(f"there is no queue '{queue}'; there are: {', '.join(QUEUES)}")
    if format is not None and export is None and import_ is None:
        raise UsageError("--format belongs to --export or --import")
    if export is not None and import_ is not None:
        raise UsageError("--export and --import are two calls; import first, so that the export holds it")
    name = by or _login()
    if export is not None:
        written = exchange.write(desk_of(opened), export, format or "jsonl", queue=queue)
        show(written.data(), as_json, written.text())
    elif import_ is not None:
        taken = exchange.read(desk_of(opened), import_, format, by=name, queue=queue)
        show(taken.data(), as_json, taken.text())
    elif status or as_json:
        data, text = look(desk_of(opened), name)
        show(data, as_json, text)
    else:
        typer.echo(look(desk_of(opened), name)[1], err=True)
        serve_review(opened, port=port, by=name, queue=queue)


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user, as in some containers
        return ""


def add_commands(app: typer.Typer) -> None:
    """Put the command into the app."""
    app.command(rich_help_panel="Use")(review)
