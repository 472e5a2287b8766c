"""The `luthier` command: thin, generated where it can be, importing a stage only when its command runs.

Data goes to stdout, progress and errors to stderr. `--json` gives machines the same as JSON. Exit codes are stable:
they are the `exit_code` of the errors in `luthier.errors`, 0 for success, 130 when interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli_data import add_commands as add_data
from luthier.cli_options import HERE, Json, ProjectDir, Settings
from luthier.cli_options import open_project as _open
from luthier.cli_options import progress_of as _progress
from luthier.cli_options import show as _print
from luthier.cli_review import add_commands as add_review
from luthier.cli_updates import add_commands as add_updates
from luthier.cli_use import add_commands as add_use
from luthier.errors import LuthierError, UsageError

if TYPE_CHECKING:
    from luthier.project import Project
    from luthier.project.base import Done

app = typer.Typer(
    name="luthier", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a company's documents to a fine-tuned model that is tested, compared, released and served.",
    epilog="Start:  luthier new helpdesk  ·  copy documents into helpdesk/documents  ·  cd helpdesk && luthier run",
)


@app.command(rich_help_panel="Project")
def new(
    folder: Annotated[Path, typer.Argument(help="Folder to create; with --task, also the data itself.")],
    into: Annotated[Path | None, typer.Argument(help="Folder to create, where the first path is data.")] = None,
    documents: Annotated[Path | None, typer.Option(help="Copy this folder of documents into it.")] = None,
    task: Annotated[str, typer.Option(help="assistant, completion, classify, tag, embed or image.")] = "assistant",
    data: Annotated[Path | None, typer.Option(help="Labelled data to copy into it: a table, a JSON file, a Hugging "
                                              "Face dataset folder, or a folder with one sub-folder a class.")] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled data of the same kind, for the test only.")] = None,
    column: Annotated[list[str] | None, typer.Option(
        metavar="ROLE=NAME", help="Name a column of the data, such as label=category; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Create a project: luthier.yaml with every field explained, and a folder for documents or labelled data."""
    from luthier.project.new import new as create
    from luthier.project.new import place_of, task_named

    kind = task_named(task)
    if into is not None:
        if data is not None:
            raise UsageError("two folders and --data are one path too many; write: luthier new FOLDER --data DATA")
        folder, data = into, folder
    elif data is None:
        folder, data = place_of(folder, kind)
    columns = dict(_assignment(text) for text in column or ())
    made = create(folder, task=kind, documents=documents, data=data, test=test, columns=columns)
    steps = [*made.todo, f"cd {shlex.quote(str(folder))}", "luthier check", "luthier run", "luthier serve"]
    found = "".join(f"  {line}\n" for line in made.told)
    _print({"folder": str(folder), "written": [str(p) for p in made.written], "found": list(made.told), "next": steps},
           as_json, (f"Found in the data:\n{found}" if found else "") + f"Created {folder}. Next:\n"
           + "\n".join(f"  {step}" for step in steps))


def _assignment(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not equals or not role.strip() or not name:
        raise UsageError(f"'{text}' names no column; write it as ROLE=NAME, such as --column label=category")
    return role.strip(), name


@app.command(rich_help_panel="Project")
def check(project: ProjectDir = HERE, settings: Settings = None, as_json: Json = False) -> None:
    """Say what a run would do, what it would cost, and what is wrong, before anything is spent."""
    from luthier.project.check import check as examine

    found = examine(_open(project, settings))
    _print(found.data(), as_json, found.text())
    if found.problems:
        raise typer.Exit(1)


@app.command(rich_help_panel="Project")
def run(
    project: ProjectDir = HERE,
    settings: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Release in spite of a refused gate; it is recorded.")] = False,
    as_json: Json = False,
) -> None:
    """Run every stage that something changed for: ingest → prepare → index → adapt → train → evaluate → release."""
    _run(project, settings, to="release", force=force, as_json=as_json)


def _run(project: Path, settings: list[str] | None, *, to: str, force: bool, as_json: bool) -> None:
    from luthier.project.base import describe
    from luthier.project.forecast import rates_of, record

    opened = _open(project, settings)
    progress = _progress(as_json)
    began, done = time.monotonic(), []
    try:
        for step in opened.run(to=to, force=force, progress=progress):
            done.append(step)
            if not as_json:
                print(_stage_line(step, opened), flush=True)
            record(opened, step)
    finally:
        rates_of.cache_clear()
        if as_json:
            print(json.dumps({"stages": [describe(step) for step in done],
                              "seconds": round(time.monotonic() - began, 2)}, ensure_ascii=False, default=str))
    if not as_json:
        for line in _closing(done, opened):
            print(line)


def _stage_line(step: Done, project: Project) -> str:
    from luthier.project.show import headline
    from luthier.project.trace import show_path

    state = f"{step.seconds:7.1f} s" if step.fresh else "     kept"
    return f"{step.stage:<9}{state}  {headline(step, project)}  ({show_path(step.folder, project.root)})"


def _closing(done: list[Done], project: Project) -> list[str]:
    last = done[-1] if done else None
    if last is None or last.stage != "release":
        return []
    from luthier.project.show import verdict_of

    return ["", verdict_of(last.folder), "", f"Report: {last.folder / 'report.html'}",
            "Serve:  luthier serve" + ("" if project.root == Path.cwd() else f" -C {project.root}")]


def _stage_command(stage: str, help_text: str, panel: str = "Stages") -> None:
    def command(project: ProjectDir = HERE, settings: Settings = None, as_json: Json = False) -> None:
        _run(project, settings, to=stage, force=False, as_json=as_json)

    command.__doc__ = help_text
    app.command(name=stage, rich_help_panel=panel)(command)


for _stage, _help in (
    ("ingest", "Read the documents; what cannot be read is set aside with a reason."),
    ("prepare", "Clean, chunk, remove duplicates, split, and make examples with a data card."),
    ("index", "Build the search index over the passages."),
    ("adapt", "Resolve the base model and decide which weights learn."),
    ("train", "Train under the contract; stops before step 1 when a point is violated."),
    ("evaluate", "Compare base, retrieval, tuned and tuned + retrieval on the frozen test; write the report."),
):
    _stage_command(_stage, _help)
add_updates(app)


@app.command(rich_help_panel="Stages")
def tune(
    project: ProjectDir = HERE,
    settings: Settings = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best settings into luthier.yaml.")] = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score the best settings on the test split, once; how "
                                           "often that was done is recorded.")] = False,
    rates: Annotated[bool, typer.Option("--rates", help="Learning-rate range test instead of a search: one short "
                                        "training with a rising rate; nothing is kept.")] = False,
    as_json: Json = False,
) -> None:
    """Search for better settings (section `tune`) by validation; a stopped or killed search goes on where it was."""
    from luthier.project.apply import apply as write
    from luthier.project.base import FILE
    from luthier.project.tune import text_of
    from luthier.project.tune import tune as search

    file = project if project.is_file() else project / FILE
    if rates:
        from luthier.project.rates import find_rate

        if evaluate:
            raise UsageError("--rates trains for a moment only, so there is nothing to evaluate; leave out --evaluate")
        found = find_rate(_open(project, settings), progress=_progress(as_json))
        written = write(file, {"train.learning_rate": found.proposed}) if apply else []
        _print({**found.data(), "applied": written}, as_json, found.text(written))
        return
    tuned = search(_open(project, settings), file=file, score_test=evaluate, progress=_progress(as_json))
    applied = write(file, tuned.overrides) if apply else []
    _print({**tuned.result, "applied": applied}, as_json, text_of(tuned, applied))


@app.command(rich_help_panel="Stages")
def blend(
    project: ProjectDir = HERE,
    settings: Settings = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the proposed share into luthier.yaml, so that runs "
                                        "release that blend.")] = False,
    as_json: Json = False,
) -> None:
    """Measure weights between the model that training began from and the trained one, and propose the knee (WiSE-FT,
    LoRA scaling, soups). No training, and nothing changes without --apply."""
    from luthier.project.apply import apply as write
    from luthier.project.base import FILE
    from luthier.project.blend import blends, text_of

    found = blends(_open(project, settings), progress=_progress(as_json))
    file = project if project.is_file() else project / FILE
    written = write(file, {"blend.at": found.data["knee"]}) if apply else []
    _print({**found.data, "folder": str(found.folder), "applied": written}, as_json, text_of(found, written))


@app.command(rich_help_panel="Stages")
def release(
    project: ProjectDir = HERE,
    settings: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Release in spite of a refused gate; it is recorded.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Make the release before it live again.")] = False,
    as_json: Json = False,
) -> None:
    """Pass the newest model through its gate and release it, or refuse it with the reason."""
    if rollback:
        from luthier.release.base import rollback as back

        opened = _open(project, settings)
        folder = back(opened.releases, opened.spec.release.name or opened.spec.name)
        _print({"live": str(folder)}, as_json, f"Live again: {folder.parent.name}/{folder.name}")
        return
    _run(project, settings, to="release", force=force, as_json=as_json)


add_use(app)
add_review(app)
add_data(app)


@app.command(rich_help_panel="Look")
def show(
    what: Annotated[str, typer.Argument(help="project, schema, kinds, releases, or a stage: ingest, prepare, index, "
                                        "adapt, train, blend, evaluate, release.")] = "project",
    project: ProjectDir = HERE,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Show the resolved project, or what a stage made."""
    from luthier.project.show import show as look

    data, text = look(lambda: _open(project, settings), what)
    _print(data, as_json, text)


@app.command(rich_help_panel="Look")
def trace(
    what: Annotated[str, typer.Argument(help="A document's path, a row (data.csv:12), a release NAME/VERSION, "
                                        "or the id of an example, passage, dropped item or answer.")],
    project: ProjectDir = HERE,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Walk lineage either way: answer → passage → page → file, document → examples → models → releases."""
    from luthier.project.show import outline
    from luthier.project.trace import trace as walk

    found = walk(_open(project, settings), what)
    _print(found, as_json, outline(found))


@app.command(rich_help_panel="Look")
def gc(
    project: ProjectDir = HERE,
    settings: Settings = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list.")] = False,
    as_json: Json = False,
) -> None:
    """List, and with --yes delete, what no release and no latest run reaches."""
    from luthier.project.gc import collect, garbage

    opened = _open(project, settings)
    found = garbage(opened)
    total = sum(item.bytes for item in found)
    freed = collect(opened, found) if yes else 0
    rows = [{"folder": str(item.folder), "bytes": item.bytes, "why": item.why} for item in found]
    lines = [f"{item.bytes / 1e6:9.1f} MB  {item.folder.parent.name}/{item.folder.name}  ({item.why})"
             for item in found]
    closing = (f"Deleted: {freed / 1e6:.1f} MB freed." if yes else
               f"{total / 1e6:.1f} MB can go; delete with: luthier gc --yes" if found else "Nothing to remove.")
    _print({"garbage": rows, "bytes": total, "freed": freed}, as_json, "\n".join([*lines, closing]))


@app.command(rich_help_panel="Look")
def version(as_json: Json = False) -> None:
    """Print the version."""
    from luthier import __version__

    _print({"version": __version__}, as_json, __version__)


def main() -> None:
    """Entry point: one clear sentence and a stable exit code for everything a user can cause."""
    as_json = "--json" in sys.argv
    if (os.cpu_count() or 1) <= 2:
        # Torch's threads wait for each other by spinning: on a busy machine of two cores, two threads took 8 times the
        # time of one (luthier.train.runtime). Must be set before torch is imported.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app()
    except LuthierError as error:
        _fail(str(error), error.exit_code, as_json, type(error).__name__)
    except KeyboardInterrupt:
        _fail("stopped; nothing is lost: run the same command again and it goes on", 130, as_json, "Interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a bug of ours: keep the trace for a report, show one sentence
        file = Path(os.environ.get("LUTHIER_CRASH_FILE", "luthier-crash.txt")).absolute()
        try:
            file.write_text(traceback.format_exc(), encoding="utf-8")
            kept = f"the details are in {file}"
        except OSError:
            traceback.print_exc()
            kept = "the details are above"
        _fail(f"internal error ({type(error).__name__}: {error}); please report it, {kept}", 70, as_json, "Bug")


def _fail(message: str, code: int, as_json: bool, kind: str) -> None:
    if as_json:
        print(json.dumps({"event": "error", "error": kind, "message": message, "exit_code": code}), file=sys.stderr)
    else:
        print(f"error: {message}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
