"""The page or picture that an item is about, drawn when somebody looks at it. Nothing outside of the project's sources
is opened, and the drawing runs in a process with limits: these are other people's files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.executors import Failure, Local
from luthier.ingest._files import locate
from luthier.prepare.base import read_examples
from luthier.queues import ReviewItem
from luthier.review.draw import draw
from luthier.store import Artifact

KEPT = 24
"""Drawn pages that are kept: the lines of one page follow one another."""
MEMORY_MB = 2000


@dataclass(frozen=True)
class Page:
    """A page as PNG, and its size in the unit of the item's box (points of a PDF, pixels of an image file)."""

    png: bytes
    width: float
    height: float


class Pages:
    """Draws pages, and keeps the last ones."""

    def __init__(self, root: Path, sources: Sequence[str], *, longest_px: int, timeout_s: float):
        """`sources` as in `ingest.sources`; `longest_px`: the longer side of a drawn page."""
        self.root, self.sources = root, [root / source for source in sources]
        self.longest_px, self.timeout_s = longest_px, timeout_s
        self._kept: OrderedDict[Any, Page] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, item: ReviewItem, prepared: Artifact | None) -> Page:
        """DataError with the reason when there is nothing to show."""
        file = self._file(item, prepared)
        try:
            about = file.stat()
        except OSError as error:
            raise DataError(f"{item.path or item.notes.get('image')} cannot be opened: {error.strerror}") from None
        key = (str(file), about.st_mtime_ns, about.st_size, item.page)
        with self._lock:  # one after the other: a page is drawn once, and memory stays bounded
            if key not in self._kept:
                job = (str(file), item.page or 1, self.longest_px)
                [(_, drawn)] = Local(1).map(draw, [job], timeout_s=self.timeout_s, memory_mb=MEMORY_MB)
                if isinstance(drawn, Failure):
                    raise DataError(f"{file.name}, page {item.page or 1}, cannot be drawn ({drawn.reason}: "
                                    f"{drawn.detail[:200]})")
                if isinstance(drawn, str):
                    raise DataError(drawn)
                self._kept[key] = Page(*drawn)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _file(self, item: ReviewItem, prepared: Artifact | None) -> Path:
        image = str(item.notes.get("image") or "")
        if image:  # a picture that is a row of its own; the user's table may name one outside of the project
            file = self.root / image
            inside = file.resolve().is_relative_to(self.root.resolve())
            if not inside and (prepared is None or all(image != one.image for one in read_examples(prepared))):
                raise DataError(f"{image} lies outside of the project and is none of its rows, so it is not shown")
            return file
        found = locate(item.path, self.sources)
        if found is None:
            raise DataError(f"{item.path} is not among the sources (any more), or lies outside of them")
        return found
