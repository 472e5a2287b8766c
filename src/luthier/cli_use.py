"""The commands that use a model: `label`, `weak`, `serve`, `chat` and `predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli_options import HERE, Json, ProjectDir, Settings, open_project, progress_of, show
from luthier.errors import UsageError

if TYPE_CHECKING:
    from luthier.project import Project


def label(
    project: ProjectDir = HERE,
    settings: Settings = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many rows to propose.")] = 20,
    ask: Annotated[bool, typer.Option("--ask", help="Go through them in the terminal, one key a row.")] = False,
    as_json: Json = False,
) -> None:
    """Propose the rows without a label that are worth a person's minute, and take down what the person says."""
    from luthier.project.label import ask as go_through
    from luthier.project.label import propose

    found = propose(open_project(project, settings), count=count, progress=progress_of(as_json))
    if ask and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        import click

        decided = go_through(found, key=click.getchar, line=typer.prompt, say=typer.echo)
        typer.echo(found.text(decided))
        return
    if ask:
        typer.echo("this is no terminal to ask in; the rows are only written down", err=True)
    show(found.data(), as_json, found.text())


def weak(project: ProjectDir = HERE, settings: Settings = None, as_json: Json = False) -> None:
    """Show what each source of weak labels (prepare.weak) says, how right it is, and where sources disagree."""
    from luthier.project.weak import weak as look

    found = look(open_project(project, settings), progress=progress_of(as_json))
    show(found.data(), as_json, found.text())


def triage(
    folders: Annotated[list[Path], typer.Argument(help="Folders or files of unknown documents.")],
    project: ProjectDir = HERE,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for triage.jsonl and triage.csv; the project's "
                                             "triage/ if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Sort unknown documents: what each is, which fields it holds, which data set it belongs to (section triage). Files
    that were sorted before are not read again."""
    from luthier.project.triage import sort_documents

    found = sort_documents(open_project(project, settings), folders, out=out, progress=progress_of(as_json))
    show(found.data(), as_json, found.text())


def _release_folder(opened: Project, name: str | None) -> Path:
    from luthier.release.base import live_release

    if name:
        folder = opened.releases / name
        if ".." in Path(name).parts or not (folder / "release.json").is_file():
            known = sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in opened.releases.glob("*/*/release.json"))
            raise UsageError(f"no release '{name}'; " + (f"there are: {', '.join(known)}" if known else
                             "nothing has been released yet; run: luthier run"))
        return folder
    return live_release(opened.releases, opened.spec.release.name or opened.spec.name)


def serve(
    project: ProjectDir = HERE,
    settings: Settings = None,
    release: Annotated[str | None, typer.Option(help="NAME/VERSION; the live one if left out.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; overrides serve.port.")] = None,
) -> None:
    """Serve the live release: OpenAI-compatible API and a chat page, with citations. When another one goes live, the
    server changes over without a restart."""
    from luthier.serve.base import serve as start

    opened = open_project(project, settings)
    folder = _release_folder(opened, release)
    spec = opened.spec.serve if port is None else opened.spec.serve.but(port=port)
    start(folder, spec, root=opened.root, follow=release is None)


def chat(
    question: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    project: ProjectDir = HERE,
    settings: Settings = None,
    model: Annotated[str | None, typer.Option("--model", help="base, retrieval, tuned or tuned_retrieval; "
                                              "the release's own choice if left out.")] = None,
    release: Annotated[str | None, typer.Option(help="NAME/VERSION; the live one if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Ask the live release from the terminal; answers cite their passages."""
    from luthier.project.chat import answer, converse

    opened = open_project(project, settings)
    folder = _release_folder(opened, release)
    if question is not None:
        found = answer(opened, folder, question, system=model)
        show(found.data(), as_json, found.text_with_sources())
    else:
        converse(opened, folder, system=model)


def predict(
    inputs: Annotated[list[str] | None, typer.Argument(help="Texts; images: files or folders.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Rows to decide: .csv, .tsv, .jsonl, .json, .parquet, or "
                                              ".txt with one a line.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of the texts or image paths.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write JSON lines here.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Likeliest labels told for each row.")] = 5,
    explain: Annotated[str | None, typer.Option(help="Also tell what speaks for the answer: occlusion or "
                                                "integrated_gradients.")] = None,
    part: Annotated[str | None, typer.Option(help="Answer among the labels of this task alone, where the model learned "
                                             "several.")] = None,
    project: ProjectDir = HERE,
    settings: Settings = None,
    release: Annotated[str | None, typer.Option(help="NAME/VERSION; the live one if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Give texts or images their labels with the live release, as the server would."""
    from luthier.project.predict import predict as decide

    opened = open_project(project, settings)
    found = decide(opened, _release_folder(opened, release), inputs or (), file=file, column=column, out=out,
                   top_k=top_k, explain=explain, part=part, progress=progress_of(as_json))
    show(found.data(), as_json, found.text())


def add_commands(app: typer.Typer) -> None:
    """Put the commands into the app."""
    for command in (label, weak, triage, serve, chat, predict):
        app.command(rich_help_panel="Use")(command)
