"""Texts sorted into folders: one sub-folder a class, one file an example, in any format that Luthier reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import Problem
from luthier.prepare.makers._labelled import UNLABELLED, LabelledSource, class_files, is_loose, split_tags
from luthier.prepare.makers._rows import read_text
from luthier.task import TaskType
from luthier.types import Dropped, Example, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_PLAIN = ("", ".txt", ".text")


@register(MAKERS, "text_folders")
class TextFolders(LabelledSource):
    """Read a folder with one sub-folder a class; every file in it is an example of that class: text, PDF, DOCX, HTML,
    e-mail and whatever else `ingest` reads. The first level may be train, validation and test; a sub-folder named
    `unlabelled` holds texts without a class."""

    max_chars: int = Field(default=100_000, ge=100)
    """Longest text of a file in characters; longer ones are dropped."""

    VERSION: ClassVar[int] = 1
    tasks: ClassVar[tuple[TaskType, ...]] = ("classify",)

    def files(self, root: Path) -> list[Path]:
        return [file for file, _, _ in class_files(self.place(root), self.path)[0]]

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example a file, `origin.documents` its id; files that cannot be read as drops with the reader's reason.

        Raises DataError when there are no class folders, or, `strict`, on bad files.
        """
        self.refuse_task(context)
        yield from self.collect(context, self._examples(context), unit="files")

    def _examples(self, context: MakeContext) -> Iterator[Example | Dropped]:
        from luthier.models.sources import file_hash

        base = self.place(context.root)
        found, loose = class_files(base, self.path)
        context.notes["classes"] = len({label for _, label, _ in found if label is not None})
        others, refused = self._read(context, base, [file for file, _, _ in found if file.suffix.lower() not in _PLAIN])
        for file in loose:
            if not is_loose(file):
                yield drop(f"{self.path}/{file.relative_to(base).as_posix()}", self.kind, "no-class-folder",
                           "it lies beside the folders of the classes, not in one")
        for file, label, split in found:
            name = file.relative_to(base).as_posix()
            where = f"{self.path.rstrip('/')}/{name}"
            try:
                sha = file_hash(file)
            except OSError as error:
                yield drop(where, self.kind, "unreadable", error.strerror or str(error))
                continue
            if file.suffix.lower() in _PLAIN:
                try:
                    text = read_text(file, where)[0]
                except DataError as error:
                    yield drop(where, self.kind, "not-text", str(error))
                    continue
            elif sha in others:
                text = others[sha]
            else:
                yield drop(where, self.kind, *refused.get(name, ("unknown-format", "no reader could use it")))
                continue
            yield self._one(text.strip(), where, sha, label, split)

    def _one(self, text: str, where: str, sha: str, label: str | None, named: Split | None) -> Example | Dropped:
        split = self.own_split(None, named)
        if isinstance(split, Problem):
            return drop(where, self.kind, split.reason, split.detail)
        if not text:
            return drop(where, self.kind, "empty-text", "the file holds no text")
        if len(text) > self.max_chars:
            return drop(where, self.kind, "too-long", f"{len(text)} characters, the limit is {self.max_chars}", text)
        return Example(
            id=digest("example", self.kind, where), input=text, target=None, split=split or "train",
            labels=None if label is None else (label,),
            tags=(*split_tags(split), *((UNLABELLED,) if label is None else ())),
            origin=Origin(maker="human", step=self.kind, documents=(sha[:16],), where=where))

    def _read(self, context: MakeContext, base: Path, files: list[Path]
              ) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
        """(text by the sha256 of the file, (reason, detail) by name of the files that no reader could use)."""
        if not files:
            return {}, {}
        from luthier.ingest.base import Ingest, read_files

        if context.store is None:
            raise TypeError("text_folders reads files through ingest and needs MakeContext.store")
        spec = Ingest(include=tuple(sorted({f"*{file.suffix}" for file in files})))
        documents, asides = read_files([base], spec, store=context.store, progress=context.progress)
        texts: dict[str, str] = {}
        for document in documents:
            before = texts.get(document.sha256)
            text = "\n\n".join(span.text for span in document.spans if not span.doubt)  # nobody has looked at the rest
            texts[document.sha256] = text if before is None else f"{before}\n\n{text}"
        return texts, {aside.path: (aside.reason, aside.detail) for aside in asides}
