"""Images sorted into folders: one sub-folder a class, every image looked at before it is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.base import MAKERS, TOGETHER
from luthier.prepare.makers import _columns, _images
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import Problem
from luthier.prepare.makers._labelled import UNLABELLED, LabelledSource, class_files, hashes, is_loose, split_tags
from luthier.prepare.makers._rows import Row, read_rows
from luthier.task import TaskType
from luthier.types import Dropped, Example, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_BATCH = 256


@register(MAKERS, "image_folders")
class ImageFolders(LabelledSource):
    """Read a folder with one sub-folder a class; every image in it is an example of that class. The first level may be
    train, validation and test; a sub-folder named `unlabelled` holds images without a class. Images that cannot be
    decoded, or are too large, are left out and counted."""

    labels: str | None = None
    """Table about the images (CSV, TSV, JSON Lines…), relative to `path`: its label wins over the folder's name, and
    its other columns can be used below."""
    image: str | None = None
    """Column of the table that holds each image's path, relative to the table; None guesses from its name."""
    label: str | None = None
    """Column of the table that holds the class; None guesses from its name, and without one the folder tells."""
    group_by: str | None = None
    """Column of the table whose equal values must stay in one split: the slide, patient or product in the images."""
    groups: tuple[str, ...] = ()
    """Columns of the table to keep as attributes for audits."""
    split_column: str = "split"
    """Column of the table that names each image's split, where it has one."""
    max_megapixels: float = Field(default=50, gt=0)
    """Larger images are dropped (millions of pixels)."""

    VERSION: ClassVar[int] = 1
    tasks: ClassVar[tuple[TaskType, ...]] = ("image",)

    @model_validator(mode="after")
    def _table_named(self) -> ImageFolders:
        if self.labels is None and (self.image or self.label or self.group_by or self.groups):
            raise ValueError("image, label, group_by and groups name columns of a table; name the table as `labels`")
        return self

    def files(self, root: Path) -> list[Path]:
        return [file for file, _, _ in class_files(self.place(root), self.path)[0]]

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of every image, and of the table."""
        table = {} if self.labels is None else hashes(root, [self._table_path(root)])
        return {**super().inputs(root), **table}

    def _table_path(self, root: Path) -> Path:
        table = self.place(root) / Path(self.labels or "").expanduser()
        if not table.is_file():
            raise DataError(f"no table at {self.labels} in the folder {self.path}; `labels` is relative to `path`")
        return table

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example an image, in the order of the paths; what is no usable image as drops with the reason.

        Raises DataError when there are no class folders, when the table's columns cannot be told, or, `strict`, on bad
        files.
        """
        self.refuse_task(context)
        yield from self.collect(context, self._examples(context), unit="images")

    def _examples(self, context: MakeContext) -> Iterator[Example | Dropped]:
        base = self.place(context.root)
        found, loose = class_files(base, self.path)
        table = None if self.labels is None else self._table(context)
        for file in loose:
            if file.suffix.lower() in _images.SUFFIXES and not is_loose(file):
                yield drop(self._where(file, base), self.kind, "no-class-folder",
                           "it lies beside the folders of the classes, not in one")
        rows = iter(found)
        cache = _images.images_cache(context.cache)
        while batch := list(islice(rows, _BATCH)):
            looked = _images.check_all([file for file, _, _ in batch], self.max_megapixels, cache)
            for (file, label, split), checked in zip(batch, looked, strict=True):
                where = self._where(file, base)
                if is_loose(file) and checked.reason == "not-an-image":
                    continue
                if checked.reason:
                    yield drop(where, self.kind, checked.reason, checked.detail)
                    continue
                row = None if table is None else table.pop(file.resolve(), None)
                if table is not None and row is None:
                    yield drop(where, self.kind, "not-in-table", f"{self.labels} has no row for it")
                    continue
                yield self._one(file, where, label, split, row, context)
        for row in (table or {}).values():
            yield drop(row.where, self.kind, "missing-file",
                       f"the image of this row is in no class folder of {self.path}")

    def _where(self, file: Path, base: Path) -> str:
        return f"{self.path.rstrip('/')}/{file.relative_to(base).as_posix()}"

    def _one(self, file: Path, where: str, label: str | None, split: Split | None, row: Row | None,
             context: MakeContext) -> Example | Dropped:
        data: Mapping[str, Any] = row.data if row else {}
        named = self.own_split(data.get(self.split_column), split)
        if isinstance(named, Problem):
            return drop(where, self.kind, named.reason, named.detail)
        labels = None if label is None else (label,)
        column = context.notes.get("column label")
        if column:
            try:
                labels = _columns.label_names(data.get(column), separator=None)
            except ValueError as error:
                return drop(where, self.kind, "bad-row", f"{row.where if row else ''}: {error}")
        groups = {name: str(data.get(name, "") or "") for name in self.groups}
        if self.group_by:
            group = _columns.label_name(data.get(self.group_by))
            if group is None:
                return drop(where, self.kind, "no-group", f"the column '{self.group_by}' is empty")
            groups[TOGETHER] = f"{self.group_by}={group}"
        return Example(
            id=digest("example", self.kind, where), input="", target=None, labels=labels,
            image=_images.image_path(file, context.root), split=named or "train", groups=groups,
            tags=(*split_tags(named), *((UNLABELLED,) if labels is None else ())),
            origin=Origin(maker="human", step=self.kind, where=where))

    def _table(self, context: MakeContext) -> dict[Path, Row]:
        """The rows of the table by the file they are about."""
        path = self._table_path(context.root)
        shown = f"{self.path.rstrip('/')}/{self.labels}"
        rows = [row for row in read_rows(path, shown, context.notes) if isinstance(row, Row)]
        fields = _columns.fields_of([row.data for row in rows[:400]])
        for role, name in (("image", self.image), ("label", self.label), ("group_by", self.group_by),
                           *(("groups", name) for name in self.groups)):
            if name is not None and name not in fields:
                raise DataError(f"{shown} has no column '{name}' (given as {role}); it has: {', '.join(fields)}")
        taken = [name for name in (self.group_by, self.split_column, *self.groups) if name]
        image = self.image or _columns.guess("image", fields, taken=taken)
        if image is None:
            raise DataError(f"cannot tell the image column of {shown} (columns: {', '.join(fields)}); name it as "
                            "`image`")
        label = self.label or _columns.guess("label", fields, taken=[*taken, image])
        context.notes.update({"column image": image, **({"column label": label} if label else {})})
        return {(path.parent / str(row.data.get(image) or "").strip()).resolve(): row for row in rows}
