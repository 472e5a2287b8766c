"""Export: prepared examples, passages or drops in a format that others read, each row with its lineage."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from luthier.errors import DataError, SpecError, UsageError
from luthier.prepare.formats.base import FORMATS, Content, Format, What
from luthier.store import Artifact, tell_disk_trouble, write_json
from luthier.task import Task
from luthier.types import Dropped, Example, Passage, Split, decode_example, decode_passage, read_jsonl

MARK = ".luthier-export.json"
"""Hidden file in an exported folder: what it is, and that `overwrite` may replace it."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    format: str
    what: What
    rows: int
    splits: dict[str, int]
    """Examples by split, as they were read; with `left_out` these add up."""
    left_out: dict[str, int]
    """Rows that the format has no place for, by reason."""
    lost: tuple[str, ...]
    """What the format cannot carry of the rows that were written."""
    reader: dict[str, Any]
    """The maker that reads it back, as it stands in `prepare.makers`; empty where none does."""

    def data(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "lost": list(self.lost)}


def export(artifact: Artifact, path: Path, format: Format, *, root: Path, what: What = "examples",
           split: Split | None = None, overwrite: bool = False) -> Exported:
    """Write what `prepare` made to `path`: a file, or a folder for formats that need several.

    Rows are streamed. The result appears at once under its name or not at all. Raises SpecError where the format does
    not fit the task or `what`; UsageError for an unfit name or one that is taken (`overwrite` replaces a file, and a
    folder that an export made); DataError where there is nothing to write.
    """
    task = Task.model_validate(artifact.inputs["task"])
    refuse(format, task, what, split)
    content = content_of(artifact, task, root=root, what=what, split=split)
    folder = format.folder(content)
    _refuse_place(path, format, folder=folder, overwrite=overwrite)
    splits = Counter(example.split for example in content.examples()) if what == "examples" else Counter()
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with tell_disk_trouble(path.parent):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            rows = format.write(aside / path.name, content)
            left_out = dict(content.left_out)
            if not rows:
                raise DataError(f"there are no {split + ' ' if split else ''}{what} to write as '{format.kind}'"
                                + "".join(f"; {count:,} × {why}" for why, count in left_out.items()))
            lost, reader = format.lost(content), _reader(format, content, path)
            if folder:
                write_json(aside / path.name / MARK, {
                    "made_by": "luthier data export", "prepare": artifact.id, "format": format.dump(), "what": what,
                    "rows": rows, "left_out": left_out, "lost": list(lost), "reader": reader})
            _put(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Exported(path=path, format=format.kind, what=what, rows=rows, splits=dict(splits), left_out=left_out,
                    lost=lost, reader=reader)


def parse_format(kind: str, options: dict[str, Any] | None = None, *, local: Path | None = None) -> Format:
    """The format of a name (also `my_module:MyFormat` from the folder `local`) with its settings."""
    from luthier.spec import parse

    try:
        found = FORMATS.get(kind, local=local)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return cast(Format, parse(found, options or {}, source=f"the options of '{kind}'", local=local))


def refuse(format: Format, task: Task, what: What, split: Split | None = None) -> None:
    """SpecError where a format has no place for what is asked."""
    if what not in get_args(What):
        raise UsageError(f"'{what}' cannot be exported; choose one of: {', '.join(get_args(What))}")
    if split is not None and what != "examples":
        raise UsageError(f"{what} have no split; leave out --split")
    if what == "passages" and task.labelled:
        raise SpecError(f"the task '{task.type}' has no passages; export its examples")
    fit = what in format.what and (what != "examples" or task.type in format.tasks)
    if not fit:
        others = [kind for kind, cls in FORMATS.kinds().items() if what in cls.what  # type: ignore[attr-defined]
                  and (what != "examples" or task.type in cls.tasks)]  # type: ignore[attr-defined]
        told = f"{what} of the task '{task.type}'" if what == "examples" else what
        raise SpecError(f"the format '{format.kind}' has no place for {told}; formats for it: {', '.join(others)}")


def content_of(artifact: Artifact, task: Task, *, root: Path, what: What, split: Split | None) -> Content:
    """What a format may read of an artifact of `prepare`."""
    from luthier.prepare.labels import FILE, read_labels

    examples, passages, dropped = (artifact.path / f"{name}.jsonl" for name in ("examples", "passages", "dropped"))
    for file in (examples, passages, dropped):
        if not file.is_file():
            raise DataError(f"{artifact.path} holds no {file.name}; it is no result of luthier prepare")

    def read_examples() -> Iterator[Example]:
        rows = (decode_example(row) for row in read_jsonl(examples))
        return (example for example in rows if split is None or example.split == split)

    def read_others() -> Iterator[Passage | Dropped]:
        if what == "passages":
            return (decode_passage(row) for row in read_jsonl(passages))
        return (Dropped(**row) for row in read_jsonl(dropped))

    places = {row["id"]: (row["path"], row["page"]) for row in read_jsonl(passages)}
    labels = read_labels(artifact) if (artifact.path / FILE).is_file() else ()
    return Content(what=what, task=task, labels=labels, examples=read_examples, others=read_others, places=places,
                   root=root)


def _refuse_place(path: Path, format: Format, *, folder: bool, overwrite: bool) -> None:
    if not folder and not path.name.lower().endswith(format.suffixes):
        raise UsageError(f"'{path.name}' does not say that it is {format.kind}: end the name with one of "
                         f"{', '.join(format.suffixes)}")
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{path} is there already; choose another name, or replace it with --overwrite")
    if path.is_dir() and (not (path / MARK).is_file() or path.is_symlink()):
        raise UsageError(f"{path} is a folder that no export made, so it is not replaced; choose another name")
    if folder and not path.is_dir():
        raise UsageError(f"{path} is a file, and '{format.kind}' makes a folder; choose another name")


def _reader(format: Format, content: Content, path: Path) -> dict[str, Any]:
    maker = format.reader(content)
    if not maker:
        return {}
    inside = maker.get("path", "")
    rest = {name: value for name, value in maker.items() if name not in ("kind", "path")}
    return {"kind": maker["kind"], "path": str(path / inside if inside else path), **rest}


def _put(aside: Path, path: Path) -> None:
    """Move the finished result to its name; what an earlier export left there goes only then."""
    if path.is_dir():
        path.rename(aside / "replaced")
    os.replace(aside / path.name, path)
