"""What the makers of labelled data share: the fields of their specs, the count of what they read, strictness."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.errors import DataError
from luthier.prepare.base import OWN_SPLIT
from luthier.prepare.makers._formats import SPLITS, Problem
from luthier.spec import Spec
from luthier.task import LABELLED, TaskType
from luthier.types import Dropped, Example, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_SHOWN = 5
UNLABELLED = "unlabelled"
"""Tag of an example whose right answer is not known; also a name of folders of such examples."""
UNLABELLED_FOLDERS = ("unlabelled", "unlabeled", "unsup")
LOOSE = ("readme", "license", "licence", "notice", "copying", "citation", "sha256sums", "changelog")
"""Names of files that come with a data set and are no example."""


class LabelledSource(Spec):
    """Fields of every maker that reads a user's labelled data."""

    path: str = Field(min_length=1)
    """File or folder, relative to the project folder."""
    split: Split | None = None
    """Put everything into this split (`test` for a file of test rows); None lets the data's own split, or else the
    project's shares, decide."""
    strict: bool = False
    """Stop with the list of bad rows or files instead of leaving them out."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskType, ...]] = LABELLED

    def place(self, root: Path) -> Path:
        return root / Path(self.path).expanduser()

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of every file read; of many files, one hash over all. Raises DataError when there is none."""
        return hashes(self.place(root), self.files(root))

    def files(self, root: Path) -> list[Path]:
        raise NotImplementedError

    def files_below(self, root: Path, wanted: Callable[[Path], bool], what: str, *, hidden: str = "._") -> list[Path]:
        """The file that `path` names, or those of its folder that are wanted, in name order; files and folders whose
        names begin with one of `hidden` are passed over."""
        path = self.place(root)
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise DataError(f"no file or folder at {self.path}; `path` is relative to the project folder")
        found = [file for file in sorted(path.rglob("*")) if file.is_file()
                 and not any(part.startswith((*hidden,)) for part in file.relative_to(path).parts) and wanted(file)]
        if not found:
            raise DataError(f"the folder {self.path} holds no {what}")
        return found

    def refuse_task(self, context: MakeContext) -> None:
        """DataError where this maker has nothing for the project's task."""
        if context.task.type not in self.tasks:
            raise DataError(f"the maker '{self.kind}' reads data for {', '.join(self.tasks)}, but task.type is "
                            f"'{context.task.type}'")

    def collect(self, context: MakeContext, found: Iterable[Example | Dropped], unit: str = "rows"
                ) -> Iterator[Example | Dropped]:
        """Pass everything on, count it, and honour `strict`. Raises DataError when nothing can be used."""
        counts: Counter[str] = Counter()
        bad: list[str] = []
        for item in found:
            counts[unit] += 1
            if isinstance(item, Example):
                counts["kept"] += 1
                counts["unlabelled"] += UNLABELLED in item.tags
            else:
                counts["dropped"] += 1
                if len(bad) < _SHOWN:
                    bad.append(f"{item.item}: {item.reason}: {item.detail}")
            yield item
        context.notes.update({"path": self.path, **{name: count for name, count in counts.items() if count}})
        if bad and self.strict:
            more = f"\n… and {counts['dropped'] - len(bad)} more" if counts["dropped"] > len(bad) else ""
            raise DataError(f"{counts['dropped']} of {counts[unit]} {unit} of {self.path} are bad; mend them or set "
                            "strict: false to leave them out:\n" + "\n".join(bad) + more)
        if not counts[unit]:
            raise DataError(f"{self.path} holds no {unit}")
        if not counts["kept"]:
            raise DataError(f"none of the {counts[unit]} {unit} of {self.path} can be used"
                            + (f"; the first: {bad[0]}" if bad else ""))
        left = f", {counts['dropped']} left out" if counts["dropped"] else ""
        context.progress.say(f"  {self.kind}: {self.path}: {counts['kept']} {unit}{left}",
                             **{"path": self.path, **counts})

    def own_split(self, named: object, missing: Split | None = None) -> Split | Problem | None:
        """The split of one row: this maker's, else the one that the data names; None leaves it to the shares."""
        if self.split is not None:
            return self.split
        if not isinstance(named, str) or not named.strip():
            return missing
        return SPLITS.get(named.strip().lower()) or Problem(
            "bad-split", f"'{named}' is no split; write train, validation or test")


def split_tags(split: Split | None) -> tuple[str, ...]:
    return (OWN_SPLIT,) if split else ()


def hashes(base: Path, files: list[Path]) -> dict[str, str]:
    """File name → sha256 of the bytes; for more than 50 files, one digest of all names and hashes."""
    from luthier.models.sources import file_hash

    root = base if base.is_dir() else base.parent
    found = {os.path.relpath(file, root): file_hash(file) for file in files}
    if len(found) <= 50:
        return found
    return {f"{len(found)} files": digest(*(part for pair in sorted(found.items()) for part in pair), length=40)}


def class_files(base: Path, shown: str) -> tuple[list[tuple[Path, str | None, Split | None]], list[Path]]:
    """(file, class, split) of every file of a folder with one sub-folder a class, and the files in no class's folder.

    The first level may be splits (train, validation or val, test). The class is None in a folder named `unlabelled`.
    Hidden files are left out. Raises DataError when there is no such folder, or when it has no sub-folders.
    """
    if not base.is_dir():
        raise DataError(f"no folder at {shown}; `path` is relative to the project folder")
    top = _folders(base)
    if not top:
        raise DataError(f"the folder {shown} holds no sub-folders; one sub-folder a class is needed")
    named: list[Split | None] = [SPLITS.get(folder.name.lower()) for folder in top]
    splits = any(named) and all(split or folder.name.lower() in UNLABELLED_FOLDERS for split, folder in zip(named, top))
    loose = _plain_files(base)
    parts: list[tuple[Path, Split | None]] = []
    for folder, split in zip(top, named):
        if splits and split:
            parts.extend((inner, split) for inner in _folders(folder))
            loose += _plain_files(folder)
        else:
            parts.append((folder, None))
    found: list[tuple[Path, str | None, Split | None]] = []
    for folder, split in parts:
        label = None if folder.name.lower() in UNLABELLED_FOLDERS else " ".join(folder.name.split())
        found.extend((file, label, split) for file in sorted(folder.rglob("*")) if file.is_file()
                     and not any(part.startswith(".") for part in file.relative_to(folder).parts))
    if not found:
        raise DataError(f"the folders below {shown} hold no files")
    return found, loose


def _folders(base: Path) -> list[Path]:
    return sorted(one for one in base.iterdir() if one.is_dir() and not one.name.startswith((".", "__MACOSX")))


def _plain_files(base: Path) -> list[Path]:
    return sorted(one for one in base.iterdir() if one.is_file() and not one.name.startswith("."))


def is_loose(file: Path) -> bool:
    """A README and its like, which nobody takes for an example."""
    return file.stem.lower() in LOOSE or file.name.lower() in LOOSE
