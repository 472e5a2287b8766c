"""What a project is made from, watched cheaply: names, sizes and times first, contents only when those changed."""

from __future__ import annotations

import fnmatch
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.ingest._files import TEMPORARY
from luthier.ingest.forgotten import FILE as FORGOTTEN
from luthier.models.sources import file_hash
from luthier.prepare import decisions
from luthier.queues import QUEUES, queue_file
from luthier.types import digest

if TYPE_CHECKING:
    from luthier.project.base import ProjectSpec

Listing = Mapping[str, tuple[int, int]]
"""File → size in bytes and time of change in nanoseconds."""


def watched(spec: ProjectSpec, root: Path) -> list[Path]:
    """The files and folders that the project reads, without what people decided in `labels/`."""
    named = [] if spec.task.labelled else list(spec.ingest.sources)
    for maker in spec.prepare.makers:
        path = getattr(maker, "path", None)
        if not isinstance(path, str):
            continue
        named.append(path)
        table = getattr(maker, "labels", None)  # of class folders of images, relative to the folder
        if isinstance(table, str):
            named.append(os.path.join(path, table))
        elif spec.task.type == "image" and Path(path).suffix:  # a table names images that lie beside it
            named.append(os.path.dirname(path) or ".")
    return [Path(os.path.normpath(root / Path(path).expanduser())) for path in dict.fromkeys(named)]


def list_files(paths: Sequence[Path], root: Path) -> tuple[Listing, list[Path]]:
    """Every file below the paths and every decision of people, and the paths that are not there."""
    found: dict[str, tuple[int, int]] = {}
    missing = [path for path in paths if not path.exists()]
    for path in paths:
        for file in _below(path):
            _add(file, found)
    decided = (queue_file(root, queue) for queue in QUEUES)
    for file in (*(root / decisions.FOLDER).glob(decisions.PATTERN), *decided, root / FORGOTTEN):
        _add(file, found)
    return dict(sorted(found.items())), missing


def content(listing: Listing, root: Path) -> str:
    """Digest of all names (relative to the project, so that it may move) and contents. FileNotFoundError for a file
    that went meanwhile."""
    parts = []
    for name in listing:
        parts += [os.path.relpath(name, root), file_hash(Path(name))]
    return digest(*parts, length=40)


def _below(path: Path) -> Iterator[str]:
    if path.is_file():
        yield str(path)
    for here, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not _temporary(name)]
        yield from (os.path.join(here, name) for name in names if not _temporary(name))


def _temporary(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in TEMPORARY)


def _add(file: str | Path, found: dict[str, tuple[int, int]]) -> None:
    try:
        about = os.stat(file)
    except OSError:  # gone, or a link to nowhere
        return
    if stat.S_ISREG(about.st_mode):
        found[str(file)] = (about.st_size, about.st_mtime_ns)


@dataclass(frozen=True)
class Look:
    """What one look found. `content` is None unless it changed; `listing` stands for names, sizes and times."""

    listing: str = ""
    content: str | None = None
    num_files: int = 0
    waiting: str = ""
    """Why a change is not told yet: files still move, or something is missing."""


class Quiet:
    """Tells of a change once the files have been at rest for `settle_s` seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._seen, self._since = "", 0.0

    def look(self, paths: Sequence[Path], root: Path, *, settle_s: float, known: str | None) -> Look:
        """Compare the files with the listing `known` from before."""
        files, missing = list_files(paths, root)
        if missing:
            return Look(waiting=f"{missing[0]} is not there (a drive that is not connected?)")
        if not files:
            return Look(waiting=f"there are no files in {', '.join(map(str, paths)) or root}")
        listing = digest(*(f"{name}:{size}:{changed}" for name, (size, changed) in files.items()), length=40)
        if listing == known:
            self._seen = ""
            return Look(listing)
        if listing != self._seen:
            self._seen, self._since = listing, self.clock()
        rest = self._since + settle_s - self.clock()
        if rest > 0:
            return Look(listing, waiting=f"files have changed; waiting until they are at rest for {settle_s:g} s")
        try:
            told = content(files, root)
        except OSError as error:
            return Look(listing, waiting=f"a file cannot be read: {error}")
        if list_files(paths, root)[0] != files:  # changed while it was read
            self._seen = ""
            return Look(listing, waiting="files change while they are read")
        return Look(listing, told, len(files))
