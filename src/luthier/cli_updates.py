"""The commands that keep a released model up to date: `update`, `watch` and `forget`."""

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


def watch(
    project: ProjectDir = HERE,
    settings: Settings = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due now and end: for cron.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only show the queue: every update, its state, since when, "
                                         "and what came of it.")] = False,
    as_json: Json = False,
) -> None:
    """Update by itself when files change or the schedule says so (section `watch`), until Ctrl-C or SIGTERM.

    --once: exit code 7 when an update was refused, 1 when one failed; a running `luthier serve` follows by itself.
    """
    if status:
        from luthier.watch.status import status as look
        from luthier.watch.status import text_of

        found = look(open_project(project, settings))
        show(found, as_json, text_of(found))
        return
    from luthier.watch.worker import watch as keep_watch

    ended = keep_watch(project, overrides=settings or (), once=once, progress=progress_of(as_json))
    states = [state for _, state in ended]
    if once:
        show([{"id": job.id, "state": state} for job, state in ended], as_json,
             "\n".join(f"Update {job.id}: {state}" for job, state in ended) or "Nothing was due.")
        if "failed" in states or "refused" in states:
            raise typer.Exit(1 if "failed" in states else GateRefused.exit_code)


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
    app.command(rich_help_panel="Project")(watch)
    app.command(rich_help_panel="Use")(forget)
