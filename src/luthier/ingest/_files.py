"""Which files a folder offers: found, checked from the outside, and hashed. Nothing is parsed here."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from luthier.errors import UsageError
from luthier.models.sources import file_hash
from luthier.types import SetAside

if TYPE_CHECKING:
    from luthier.ingest.base import Ingest

TEMPORARY = ("~$*", ".*", "*~", "*.tmp", "*.part", "*.crdownload", "*.swp", "Thumbs.db", "desktop.ini", "__MACOSX")
"""Left behind by office programs, file managers, editors and browsers; never documents."""


@dataclass(frozen=True)
class File:
    """A regular file to read."""

    path: str
    name: str
    sha256: str
    size: int
    mtime_ns: int


@dataclass
class Found:
    files: list[File] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    ignored: int = 0
    """Hidden, temporary and excluded files and folders."""


def collect(sources: Sequence[Path], spec: Ingest) -> Found:
    """Every file below the sources, ordered by name. Raises UsageError for a source that is not there.

    With one source, names are relative to it; with several, each name starts with its source's own name.
    """
    found = Found()
    taken: set[str] = set()
    for source in sources:
        try:
            mode = source.stat().st_mode
        except FileNotFoundError:
            raise UsageError(f"there is no folder or file {source}; create it and put your documents there, "
                             "or name another one under ingest.sources") from None
        except OSError as error:
            raise UsageError(f"{source} cannot be read: {error.strerror}; check its permissions") from None
        prefix = _prefix(source, taken) if len(sources) > 1 and stat.S_ISDIR(mode) else ""
        if stat.S_ISDIR(mode):
            entries = _walk(source, prefix, spec, found)
        else:
            entries = iter([(source, _unique(source.name, taken))])
        for path, name in entries:
            _add(path, _printable(name), source, spec, found)
    found.files.sort(key=lambda file: file.name)
    _set_duplicates_aside(found)
    return found


def locate(name: str, sources: Sequence[Path]) -> Path | None:
    """The file that `collect` gave this name; None if it is not there, or would lie outside of its source."""
    taken: set[str] = set()
    for source in sources:
        folder = source.is_dir()
        prefix = _prefix(source, taken) if len(sources) > 1 and folder else ""
        if not folder:
            if _unique(source.name, taken) == name and source.is_file():
                return source
        elif name.startswith(prefix):
            path = source / name[len(prefix):]
            if path.is_file() and _inside(path, source):
                return path
    return None


def _printable(name: str) -> str:
    """A name that can be stored, shown in a terminal and put into a prompt: bytes that are no UTF-8, line breaks,
    escape sequences and marks that turn the writing direction are written out: `caf\\xe9.txt`, `a\\nb.txt`."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in name)


def _prefix(source: Path, taken: set[str]) -> str:
    return _unique(source.resolve().name or "root", taken) + "/"


def _unique(name: str, taken: set[str]) -> str:
    number, candidate = 2, name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    taken.add(candidate)
    return candidate


def _walk(root: Path, prefix: str, spec: Ingest, found: Found) -> Iterator[tuple[Path, str]]:
    def unreadable(error: OSError) -> None:
        name = _printable(prefix + Path(error.filename).relative_to(root).as_posix())
        found.set_aside.append(SetAside(path=name, reason="unreadable", detail=f"folder: {error.strerror}"))

    for here, folders, names in os.walk(root, onerror=unreadable):
        relative = Path(here).relative_to(root)
        kept = []
        for folder in sorted(folders):
            name = (relative / folder).as_posix()
            if _skipped(name, spec):
                found.ignored += 1
            elif os.path.islink(os.path.join(here, folder)):
                if not _inside(Path(here, folder), root):
                    found.set_aside.append(_escaping(prefix + name, Path(here, folder)))
                # else: its files are met where they really are
            else:
                kept.append(folder)
        folders[:] = kept
        for name in sorted(names):
            relative_name = (relative / name).as_posix()
            wanted = not spec.include or any(_matches(relative_name, pattern) for pattern in spec.include)
            if _skipped(relative_name, spec) or not wanted:
                found.ignored += 1
            else:
                yield Path(here, name), prefix + relative_name


def _skipped(name: str, spec: Ingest) -> bool:
    last = PurePosixPath(name).name
    if any(fnmatch.fnmatchcase(last, pattern) for pattern in TEMPORARY):
        return True
    return any(_matches(name, pattern) for pattern in spec.exclude)


def _matches(name: str, pattern: str) -> bool:
    """`*` crosses folders; a pattern may also name the last part alone, or a folder above."""
    pattern = pattern.strip().strip("/")
    path = PurePosixPath(name)
    candidates = [name, path.name, *(parent.as_posix() for parent in path.parents), *path.parts]
    return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates)


def _inside(link: Path, root: Path) -> bool:
    return link.resolve().is_relative_to(root.resolve())


def _escaping(name: str, link: Path) -> SetAside:
    target = _printable(os.readlink(link))
    return SetAside(path=_printable(name), reason="unsafe-link", detail=f"a link to {target}, outside the folder")


def _add(path: Path, name: str, source: Path, spec: Ingest, found: Found) -> None:
    def aside(reason: str, detail: str) -> None:
        found.set_aside.append(SetAside(path=name, reason=reason, detail=detail))

    try:
        if path != source and path.is_symlink() and not _inside(path, source):
            found.set_aside.append(_escaping(name, path))
            return
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # opening a named pipe would wait for ever
            aside("unknown-format", "not a regular file")
        elif about.st_size == 0:
            aside("empty", "0 bytes")
        elif about.st_size > spec.max_mb * 1e6:
            aside("too-large", f"{about.st_size / 1e6:.1f} MB; the limit is {spec.max_mb:g} MB (ingest.max_mb)")
        else:
            found.files.append(File(path=str(path), name=name, sha256=file_hash(path), size=about.st_size,
                                    mtime_ns=about.st_mtime_ns))
    except FileNotFoundError:
        aside("unreadable", "a link to a file that is not there" if path.is_symlink() else "vanished while reading")
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        aside("unreadable", getattr(error, "strerror", None) or str(error))


def _set_duplicates_aside(found: Found) -> None:
    first: dict[str, str] = {}
    kept = []
    for file in found.files:
        if file.sha256 in first:
            found.set_aside.append(SetAside(path=file.name, reason="duplicate",
                                            detail=f"the same bytes as {first[file.sha256]}"))
        else:
            first[file.sha256] = file.name
            kept.append(file)
    found.files[:] = kept
