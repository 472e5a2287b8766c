"""The commands that keep a released model up to date: `update` and `forget`."""

from __future__ import annotations

from typing import Annotated

import typer

from luthier.cli_options import HERE, Json, ProjectDir, Settings, open_project, progress_of, show
from luthier.errors import GateRefused, UsageError


def update(
    project: ProjectDir = HERE,
    settings: Settings = None,
    approve: Annotated[str | None, typer.Option("--approve", metavar="NAME", help="Release the update that waits for a "
                                                "decision; the name of the person who decided is recorded.")] = None,
    reject: Annotated[str | None, typer.Option("--reject", metavar="NAME",
                                               help="Refuse the update that waits.")] = None,
    as_json: Json = False,
) -> None:
    """Bring the live model up to date with new, changed and removed documents or rows; release it if nothing is lost.

    Exit code 0: released, nothing to do, or waiting for --approve; 7: refused by the gate, the live model stays.
    """
    from luthier.watch.update import update as bring_up_to_date

    if approve is not None and reject is not None:
        raise UsageError("--approve and --reject are two answers; give one")
    for name, value in (("--approve", approve), ("--reject", reject)):
        if value is not None and not value.strip():
            raise UsageError(f"{name} needs the name of the person who decides")
    outcome = bring_up_to_date(open_project(project, settings), progress=progress_of(as_json), approve=approve,
                               reject=reject)
    show(outcome.data(), as_json, outcome.text())
    if outcome.state == "refused":
        raise typer.Exit(GateRefused.exit_code)


def forget(
    what: Annotated[str, typer.Argument(help="A document's path or id, a file of rows (data/march.csv), or one row "
                                        "(data/march.csv:12).")],
    project: ProjectDir = HERE,
    settings: Settings = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only list what it reached; change nothing.")] = False,
    reason: Annotated[str, typer.Option(help="Why; recorded in labels/forgotten.jsonl.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Release the model without it even if a gate refuses that "
                                        "(recorded).")] = False,
    as_json: Json = False,
) -> None:
    """List what a document or rows reached, never read them again, and train the live model anew without them."""
    from luthier.watch.forget import forget as leave_out

    found = leave_out(open_project(project, settings), what, only_list=only_list, reason=reason, force=force,
                      progress=progress_of(as_json))
    show(found.data(), as_json, found.text())
    if found.state == "refused":
        raise typer.Exit(GateRefused.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Put the commands into the app."""
    app.command(rich_help_panel="Project")(update)
    app.command(rich_help_panel="Use")(forget)
