"""COCO-style annotation files: images with categories, or with boxes that each have one."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.base import MAKERS, TOGETHER
from luthier.prepare.makers import _images
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import SPLITS, Problem
from luthier.prepare.makers._labelled import UNLABELLED, LabelledSource, hashes, split_tags
from luthier.prepare.makers._rows import read_text
from luthier.task import TaskType
from luthier.types import Dropped, Example, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_BATCH = 256
_KEYS = ("images", "annotations", "categories")
Box = tuple[float, float, float, float]


@register(MAKERS, "coco")
class CocoFiles(LabelledSource):
    """Read COCO-style annotations: `path` names the JSON file, or a folder with several; files named after a split
    (train.json, instances_val2017.json) belong to it. An image whose annotations all have one category is an example
    of that class; one without annotations is kept as unlabelled. A model here gives an image one class, so `several`
    says what becomes of images with more."""

    images: str | None = None
    """Folder that `file_name` starts from, relative to the project folder; None looks beside the annotations: the same
    folder, `images`, or one named like the split, there or one level up."""
    several: Literal["drop", "largest", "commonest", "crop"] = "drop"
    """Images with several categories: leave them out and count them; take the category with the largest summed box
    area, or with the most boxes; or `crop`: make every box, in every image, an example of its own (boxes of one image
    stay in one split)."""
    min_box: int = Field(default=8, ge=1)
    """crop: smaller boxes (shorter side in pixels) are left out."""
    max_megapixels: float = Field(default=50, gt=0)
    """Larger images are dropped (millions of pixels)."""

    VERSION: ClassVar[int] = 1
    tasks: ClassVar[tuple[TaskType, ...]] = ("image",)

    def files(self, root: Path) -> list[Path]:
        """The annotation files."""
        return self.files_below(root, lambda file: file.suffix == ".json" and is_coco(file),
                                "COCO annotation file (JSON with images, annotations and categories)", hidden=".")

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of every annotation file and image."""
        found = super().inputs(root)
        pictures = [one for file in self.files(root) for image in read_coco(file, file.name)["images"]
                    if (one := self._find(file, str(image.get("file_name", "")), root)) is not None]
        return {**found, **hashes(root, sorted(set(pictures)))}

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example an image, or, `several: crop`, one a box; `where` is the file, the image's id and the box.

        Raises DataError when nothing can be read, or, `strict`, on bad images.
        """
        self.refuse_task(context)
        yield from self.collect(context, self._examples(context), unit="boxes" if self.several == "crop" else "images")

    def _examples(self, context: MakeContext) -> Iterator[Example | Dropped]:
        place = self.place(context.root)
        for file in self.files(context.root):
            shown = self.path if place.is_file() else f"{self.path.rstrip('/')}/{file.relative_to(place).as_posix()}"
            data = read_coco(file, shown)
            names = {one.get("id"): " ".join(str(one.get("name", "")).split()) for one in data["categories"]}
            boxes: dict[Any, list[tuple[str | None, Box | None]]] = defaultdict(list)
            for one in data["annotations"]:
                boxes[one.get("image_id")].append((names.get(one.get("category_id")) or None, _box(one.get("bbox"))))
            split = self.own_split(None, split_of(file))
            assert not isinstance(split, Problem)  # a file's name is a known split or none
            rows = iter(data["images"])
            cache = _images.images_cache(context.cache)
            while batch := list(islice(rows, _BATCH)):
                found = [self._find(file, str(row.get("file_name", "")), context.root) for row in batch]
                looked = _images.check_all([one or file.parent / "missing" for one in found], self.max_megapixels,
                                           cache)
                for row, picture, checked in zip(batch, found, looked, strict=True):
                    where = f"{shown}, image {row.get('id')}"
                    if picture is None or checked.reason:
                        yield drop(where, self.kind, checked.reason or "missing-file",
                                   f"{row.get('file_name')}: {checked.detail}")
                        continue
                    yield from self._image(picture, where, boxes.get(row.get("id"), []), split, context)

    def _image(self, picture: Path, where: str, boxes: list[tuple[str | None, Box | None]], split: Split | None,
               context: MakeContext) -> Iterator[Example | Dropped]:
        if any(name is None for name, _ in boxes):
            yield drop(where, self.kind, "unknown-category", "an annotation names a category that is not in the file")
            return
        if self.several == "crop":
            yield from self._crops(picture, where, boxes, split, context)
            return
        areas: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for name, box in boxes:
            assert name is not None
            counts[name] += 1
            areas[name] += round(box[2] * box[3]) if box else 0
        if len(counts) > 1 and self.several == "drop":
            yield drop(where, self.kind, "several-categories", f"{', '.join(sorted(counts))}: an image has one class "
                       "here; `several` takes the largest or commonest, or makes every box an example")
            return
        ranked = areas if self.several == "largest" and any(areas.values()) else counts
        label = max(sorted(ranked), key=lambda name: ranked[name]) if ranked else None
        yield self._example(picture, where, label, split, {}, context)

    def _crops(self, picture: Path, where: str, boxes: list[tuple[str | None, Box | None]], split: Split | None,
               context: MakeContext) -> Iterator[Example | Dropped]:
        from PIL import Image

        cache = _images.images_cache(context.cache)
        with Image.open(picture) as image:
            whole = image.convert("RGB")
        if not boxes:
            yield drop(where, self.kind, "no-box", "there is nothing to cut out of it")
        for number, (label, box) in enumerate(boxes, 1):
            place = f"{where}, box {number}"
            edges = _edges(box, whole.size)
            if edges is None or min(edges[2] - edges[0], edges[3] - edges[1]) < self.min_box:
                yield drop(place, self.kind, "no-box" if edges is None else "small-box",
                           f"{box}: its shorter side has less than {self.min_box} pixels (min_box)" if edges else
                           "the annotation has no box inside the image")
                continue
            file = _images.keep_bytes(_png(whole.crop(edges)), cache)
            yield self._example(file, f"{place} at {edges[0]},{edges[1]},{edges[2]},{edges[3]}", label, split,
                                {TOGETHER: f"image={where}"}, context)

    def _example(self, file: Path, where: str, label: str | None, split: Split | None, groups: dict[str, str],
                 context: MakeContext) -> Example:
        return Example(
            id=digest("example", self.kind, where), input="", target=None, labels=None if label is None else (label,),
            image=_images.image_path(file, context.root), split=split or "train", groups=groups,
            tags=(*split_tags(split), *((UNLABELLED,) if label is None else ())),
            origin=Origin(maker="human", step=self.kind, where=where))

    def _find(self, annotations: Path, name: str, root: Path) -> Path | None:
        """The image's file; never one outside the folders of the data."""
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        here = annotations.parent
        if self.images is not None:
            bases = [root / Path(self.images).expanduser()]
        else:
            parts = annotations.stem.split("_")
            inside = ("", "images", annotations.stem, parts[-1])
            bases = [base / one for base in (here, here.parent) for one in inside]
        return next((base / name for base in bases if (base / name).is_file()), None)


def is_coco(file: Path) -> bool:
    """Whether a JSON file holds images, annotations and categories, without parsing it."""
    try:
        body = file.read_bytes()
    except OSError:
        return False
    if not body[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    return all(f'"{key}"'.encode() in body for key in _KEYS)


def split_of(file: Path) -> Split | None:
    """The split in a file's or its folder's name: instances_val2017.json, test/_annotations.coco.json."""
    parts = re.split(r"[^a-z]+", file.stem.lower())
    found: Split | None = next((SPLITS[part] for part in parts if part in SPLITS), None)
    return found or SPLITS.get(file.parent.name.lower())


def read_coco(file: Path, shown: str) -> dict[str, list[dict[str, Any]]]:
    try:
        data = json.loads(read_text(file, shown)[0])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown} is not valid JSON: {error}") from None
    for key in _KEYS:
        rows = data.get(key) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{shown} is no COCO annotation file: it holds no list of objects under '{key}'")
    return data


def _box(value: Any) -> Box | None:
    """x, y, width and height in pixels."""
    if not isinstance(value, list) or len(value) != 4 or not all(
            isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e7 for one in value):
        return None
    return (value[0], value[1], value[2], value[3]) if value[2] > 0 and value[3] > 0 else None


def _edges(box: Box | None, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom in whole pixels inside the image."""
    if box is None:
        return None
    left, top = max(0, int(box[0])), max(0, int(box[1]))
    right, bottom = min(size[0], round(box[0] + box[2])), min(size[1], round(box[1] + box[3]))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _png(image: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG", optimize=False)
    return written.getvalue()
