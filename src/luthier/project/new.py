"""`luthier new`: a project folder that runs as soon as documents lie in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from luthier.errors import UsageError
from luthier.project.base import FILE, ProjectSpec
from luthier.project.yaml_file import commented_yaml, schema_text
from luthier.store import tell_disk_trouble, write_text

IGNORE = """\
# Made by Luthier from what is beside it; can always be made again.
.luthier/
"""


def new(folder: Path, *, documents: Path | None = None) -> list[Path]:
    """Write the project files; `documents` are copied into it. Returns what was written.

    Refuses a folder that already holds a project; every other file in it is left alone.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-") or "assistant"
    if (folder / FILE).exists():
        raise UsageError(f"{folder / FILE} exists already; choose another folder or edit that file")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    if documents is not None and not documents.is_dir():
        raise UsageError(f"no such folder of documents: {documents}")
    if documents is not None and folder.resolve().is_relative_to(documents.resolve()):
        raise UsageError(f"the project {folder} would lie inside its own documents {documents}; choose another folder")
    written = []
    with tell_disk_trouble(folder.parent):
        (folder / "documents").mkdir(parents=True, exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        for file, text in ((FILE, commented_yaml(ProjectSpec(name=name))), ("luthier.schema.json", schema_text()),
                           (".gitignore", IGNORE)):
            if not (folder / file).exists():
                write_text(folder / file, text)
                written.append(folder / file)
        if documents is not None:
            shutil.copytree(documents, folder / "documents", dirs_exist_ok=True, symlinks=True)
    return written
