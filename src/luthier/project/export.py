"""`luthier data export`: what `prepare` made last, in a format that others read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.prepare.export import Exported, export, parse_format
from luthier.prepare.formats.base import What
from luthier.project.base import Project
from luthier.types import Split


def export_data(project: Project, path: Path, *, format: str, what: What = "examples", split: Split | None = None,
                options: Sequence[str] = (), overwrite: bool = False) -> Exported:
    """Write the newest examples, passages or drops of a project; see `luthier.prepare.export.export`."""
    artifact = project.artifact("prepare")
    if split is not None and split not in ("train", "validation", "test"):
        raise UsageError(f"'{split}' is no split; write train, validation or test")
    chosen = parse_format(format, dict(_option(text) for text in options), local=project.root)
    return export(artifact, path, chosen, root=project.root, what=what, split=split, overwrite=overwrite)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"'{text}' sets nothing; write it as NAME=VALUE, such as --option excel=true")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def text_of(done: Exported) -> str:
    """For a person: how much was written, what is not in it, and how it is read back."""
    splits = ", ".join(f"{count:,} {name}" for name, count in done.splits.items())
    noun = {"dropped": "dropped items"}.get(done.what, done.what)
    noun = noun.removesuffix("s") if done.rows == 1 else noun
    lines = [f"{done.rows:,} {noun} written as {done.format} to {done.path}" + (f" ({splits})" if splits else "")]
    lines += [f"  left out: {count:,} rows {why}" for why, count in done.left_out.items()]
    lines += [f"  not carried: {one}" for one in done.lost]
    if done.reader:
        fields = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" if not isinstance(value, str) else
                           f"{name}: {value}" for name, value in done.reader.items())
        lines.append(f"  read back with the maker {{{fields}}}")
    return "\n".join(lines)
