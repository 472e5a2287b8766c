"""COCO-style annotations for images with one class each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from luthier.errors import need
from luthier.plugins import register
from luthier.prepare.formats import _files
from luthier.prepare.formats.base import FORMATS, Content, FileFormat
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.task import TaskType

FOLDER = "images"


@register(FORMATS, "coco")
class Coco(FileFormat):
    """COCO-style: `images/` with copies and `annotations/SPLIT.json` with images, annotations and categories. The
    class stands as one annotation whose box is the whole image; images without a class have none; lineage stands in
    each image's entry under `luthier`."""

    tasks: ClassVar[tuple[TaskType, ...]] = ("image",)

    def write(self, path: Path, content: Content) -> int:
        from luthier.prepare.formats._flat import lineage

        pillow = need("PIL.Image", extra="images")
        (path / "annotations").mkdir(parents=True)
        number = {label: at for at, label in enumerate(content.labels, 1)}
        parts: dict[str, _Part] = {}
        count = 0
        for example in content.examples():
            if OUT_OF_SCOPE in example.tags:
                content.left_out["of none of the classes"] += 1
                continue
            if example.split not in parts:
                parts[example.split] = _Part(path / "annotations" / f"{example.split}.json", number)
            name = _files.copy(example, content, path / FOLDER)
            with pillow.open(path / FOLDER / name) as image:
                width, height = image.size
            count += 1
            parts[example.split].add(count, {"file_name": name, "width": width, "height": height,
                                             "luthier": lineage(example, content)},
                                     [number[label] for label in example.labels or ()])
        for part in parts.values():
            part.close()
        return count

    def lost(self, content: Content) -> tuple[str, ...]:
        more = any(example.weight != 1 or example.groups for example in content.examples())
        return ("weights and groups of the rows",) if more else ()

    def reader(self, content: Content) -> dict[str, Any]:
        return {"kind": "coco"}


class _Part:
    """One split's file, written as it comes: annotations wait in a file of their own until the images are through."""

    def __init__(self, file: Path, number: dict[str, int]):
        self.path, self.aside = file, file.with_suffix(".part")
        self.images, self.annotations = file.open("w", encoding="utf-8"), self.aside.open("w", encoding="utf-8")
        categories = [{"id": at, "name": label, "supercategory": ""} for label, at in number.items()]
        head = {"info": {"description": "Exported by Luthier; each annotation is the class of the whole image."},
                "licenses": [], "categories": categories}
        self.images.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"images": [')
        self.separators = {self.images: "\n", self.annotations: "\n"}

    def add(self, id: int, image: dict[str, Any], categories: list[int]) -> None:
        self._put(self.images, {"id": id, **image})
        for category in categories:
            width, height = image["width"], image["height"]
            self._put(self.annotations, {"id": id, "image_id": id, "category_id": category, "iscrowd": 0,
                                         "bbox": [0, 0, width, height], "area": width * height, "segmentation": []})

    def _put(self, file: Any, record: dict[str, Any]) -> None:
        file.write(self.separators[file] + json.dumps(record, ensure_ascii=False))
        self.separators[file] = ",\n"

    def close(self) -> None:
        self.images.write('\n],\n"annotations": [')
        self.annotations.close()
        with self.aside.open(encoding="utf-8") as rest:
            shutil.copyfileobj(rest, self.images)
        self.images.write("\n]}\n")
        self.images.close()
        self.aside.unlink()
