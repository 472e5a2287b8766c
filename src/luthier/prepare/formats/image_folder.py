"""Images sorted into folders: one a split, below it one a class."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, ClassVar

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.formats import _files
from luthier.prepare.formats.base import FORMATS, Content, FileFormat
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.task import TaskType

_UNLABELLED = ("unlabelled", "unlabeled", "unsup")
_TABLE = "metadata.csv"


@register(FORMATS, "image_folder")
class ImageFolder(FileFormat):
    """One folder a split, below it one a class with copies of its images, as torchvision, Keras and `datasets` read
    them; images without a class lie in `unlabelled`. `metadata.csv` holds each file's class and lineage."""

    tasks: ClassVar[tuple[TaskType, ...]] = ("image",)

    def write(self, path: Path, content: Content) -> int:
        from luthier.prepare.formats._flat import lineage

        for label in content.labels:
            if re.search(r"[/\\\0:*?\"<>|]|^[.\s]|[.\s]$", label) or label.lower() in (*_UNLABELLED, "__macosx"):
                raise DataError(f"the class {label!r} cannot be the name of a folder; export as coco, hf or csv")
        path.mkdir(parents=True)
        count = 0
        with (path / _TABLE).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file_name", "label", "id", "split", "step", "origin"])
            for example in content.examples():
                if OUT_OF_SCOPE in example.tags:
                    content.left_out["of none of the classes"] += 1
                    continue
                label = example.labels[0] if example.labels else _UNLABELLED[0]
                name = _files.copy(example, content, path / example.split / label)
                told = lineage(example, content)
                table.writerow([f"{example.split}/{label}/{name}", label if example.labels else "",
                                *(told[key] for key in ("id", "split", "step", "origin"))])
                count += 1
        return count

    def lost(self, content: Content) -> tuple[str, ...]:
        more = any(example.weight != 1 or example.groups for example in content.examples())
        return ("weights and groups of the rows",) if more else ()

    def reader(self, content: Content) -> dict[str, Any]:
        return {"kind": "image_folders"}
