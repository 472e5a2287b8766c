"""What a format of exported data is, and what it is given to write."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from luthier.plugins import Seam
from luthier.spec import Spec
from luthier.task import Task, TaskType
from luthier.types import Dropped, Example, Passage

FORMATS = Seam("format", package="luthier.prepare.formats")

What = Literal["examples", "passages", "dropped"]
CHAT: tuple[TaskType, ...] = ("assistant", "completion")
EVERY: tuple[TaskType, ...] = ("assistant", "completion", "classify", "tag", "embed", "image")
OUTSIDE = "out-of-scope"
"""Label written for rows of none of the classes."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is to be written. Rows are read from disk each time they are asked for, and never held together."""

    what: What
    task: Task
    labels: tuple[str, ...]
    """Classes or tags in the order of the model's outputs; empty for the other tasks."""
    examples: Callable[[], Iterator[Example]]
    others: Callable[[], Iterator[Passage | Dropped]]
    """Passages or drops, where `what` says so."""
    places: Mapping[str, tuple[str, int | None]]
    """Passage id → (document's path, page)."""
    root: Path
    """The project folder, which paths of images start from."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Filled by the format: rows that it has no place for, by reason."""

    @property
    def images(self) -> bool:
        """Whether the rows are images that must be copied."""
        return self.what == "examples" and self.task.type == "image"


class Format(Protocol):
    """Writes data in one format. A registered `Spec` whose fields are its settings."""

    kind: ClassVar[str]
    tasks: ClassVar[tuple[TaskType, ...]]
    """Task types whose examples fit into it."""
    what: ClassVar[tuple[What, ...]]
    suffixes: ClassVar[tuple[str, ...]]
    """Endings of the file that it writes; empty where it always writes a folder."""

    def folder(self, content: Content) -> bool:
        """Whether the result is a folder."""
        ...

    def write(self, path: Path, content: Content) -> int:
        """Write to `path`, which does not exist yet; returns the number of rows. The caller owns atomicity."""
        ...

    def lost(self, content: Content) -> tuple[str, ...]:
        """What the format cannot carry, one sentence each, for a person."""
        ...

    def reader(self, content: Content) -> dict[str, Any]:
        """The maker that reads it back, without its `path`; empty where none does."""
        ...

    def dump(self) -> dict[str, Any]: ...


class FileFormat(Spec):
    """What most formats share: one text file, all tasks."""

    tasks: ClassVar[tuple[TaskType, ...]] = EVERY
    what: ClassVar[tuple[What, ...]] = ("examples",)
    suffixes: ClassVar[tuple[str, ...]] = ()

    def folder(self, content: Content) -> bool:
        return not self.suffixes

    def lost(self, content: Content) -> tuple[str, ...]:
        return ()


def open_text(path: Path) -> io.TextIOBase:
    """For writing UTF-8 with line feeds, compressed where the name ends with .gz (without a time stamp, so that equal
    data gives equal bytes)."""
    if path.suffix.lower() == ".gz":
        return io.TextIOWrapper(_Packed(path), encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


class _Packed(io.BufferedWriter):
    """A gzip file; closes the file below it too, which GzipFile leaves open when it was given one."""

    def __init__(self, path: Path):
        self._below = path.open("wb")
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=self._below, mtime=0)
        super().__init__(packed)  # type: ignore[arg-type]  # GzipFile is a raw stream in all but name

    def close(self) -> None:
        super().close()
        self._below.close()


def json_line(row: Mapping[str, Any]) -> str:
    """One line of JSON; characters that UTF-8 cannot hold (half of a surrogate pair) are escaped."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"


def plain(text: str) -> str:
    """A text for formats that can hold neither zero bytes nor halves of surrogate pairs; both become U+FFFD."""
    text = text.replace("\0", "\ufffd")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    return text
