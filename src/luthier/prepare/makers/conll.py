"""Tagged words in columns: CoNLL files, one word a line, sentences apart by an empty line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.base import MAKERS, TOGETHER
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import SPLITS, Problem
from luthier.prepare.makers._labelled import UNLABELLED, LabelledSource, split_tags
from luthier.prepare.makers._rows import read_text
from luthier.prepare.makers._tags import join_words
from luthier.task import TaskType
from luthier.types import Dropped, Example, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".bioes", ".txt", ".tsv", ".train", ".dev", ".test", ".testa", ".testb",
            ".conllu")
_DOCUMENT = "-DOCSTART-"
_PARTS: dict[str, Split] = {**SPLITS, "testa": "validation", "testb": "test"}


@register(MAKERS, "conll")
class Conll(LabelledSource):
    """Read word tags from CoNLL column files: a word and its tag a line, an empty line after each sentence. IOB1,
    IOB2, BIOES and BILOU tags are understood. `path` names a file, or a folder of files; files named after a split
    (train.conll, eng.testa) belong to it, unless `split` says otherwise."""

    word_column: int = 0
    """Column of the word; 0 is the first, -1 the last."""
    tag_column: int = -1
    """Column of the tag; 0 is the first, -1 the last."""
    by_document: bool = True
    """Keep the sentences between two `-DOCSTART-` lines in one split, where the file has such lines."""
    max_words: int = Field(default=5_000, ge=1)
    """Longest sentence in words; longer ones are dropped."""

    VERSION: ClassVar[int] = 1
    tasks: ClassVar[tuple[TaskType, ...]] = ("tag",)

    def files(self, root: Path) -> list[Path]:
        return self.files_below(root, lambda file: file.suffix.lower() in SUFFIXES,
                                f"CoNLL files ({', '.join(SUFFIXES)})")

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example a sentence, its words joined by spaces, `where` the file and the sentence's first line.

        Raises DataError when nothing can be read, or, `strict`, on bad sentences.
        """
        self.refuse_task(context)
        yield from self.collect(context, self._examples(context), unit="sentences")

    def _examples(self, context: MakeContext) -> Iterator[Example | Dropped]:
        path = self.place(context.root)
        for file in self.files(context.root):
            name = self.path if path.is_file() else f"{self.path.rstrip('/')}/{file.relative_to(path).as_posix()}"
            split = self.own_split(None, split_of(file))
            documents = 0
            for line, rows in sentences(read_text(file, name)[0]):
                where = f"{name}:{line}"
                if rows[0][0] == _DOCUMENT:
                    documents += 1
                    continue
                group = f"{name}#{documents}" if documents and self.by_document else ""
                yield self._sentence(rows, where, split, group)

    def _sentence(self, rows: list[list[str]], where: str, split: Split | Problem | None, group: str
                  ) -> Example | Dropped:
        text = " ".join(cells[0] for cells in rows)
        if isinstance(split, Problem):
            return drop(where, self.kind, split.reason, split.detail, text)
        if len(rows) > self.max_words:
            return drop(where, self.kind, "too-long", f"{len(rows)} words, the limit is {self.max_words}", text)
        needed = max(column + 1 if column >= 0 else -column for column in (self.word_column, self.tag_column))
        widths = {len(cells) for cells in rows}
        if len(widths) > 1 or min(widths) < needed:
            return drop(where, self.kind, "wrong-number-of-columns", f"its lines have {sorted(widths)} columns", text)
        words = [cells[self.word_column] for cells in rows]
        known = min(widths) > 1  # words alone: a sentence without tags
        text, spans = join_words(words, [cells[self.tag_column] for cells in rows] if known else ["O"] * len(words))
        return Example(
            id=digest("example", self.kind, where), input=text, target=None, spans=spans if known else None,
            split=split or "train", tags=(*split_tags(split), *(() if known else (UNLABELLED,))),
            groups={TOGETHER: f"document={group}"} if group else {},
            origin=Origin(maker="human", step=self.kind, where=where))


def sentences(text: str) -> Iterator[tuple[int, list[list[str]]]]:
    """(first line, cells of each line) of every sentence; cells are apart by tabs where a line has one, else by
    spaces. Comment lines of CoNLL-U ("# ", before a sentence) are left out."""
    rows: list[list[str]] = []
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            if rows:
                yield first, rows
            rows = []
            continue
        if not rows and line.startswith("# "):
            continue
        if not rows:
            first = number
        rows.append([cell.strip() for cell in line.split("\t")] if "\t" in line else line.split())
        if rows[0][0] == _DOCUMENT:
            yield first, rows
            rows = []
    if rows:
        yield first, rows


def split_of(file: Path) -> Split | None:
    """The split in a file's name: train.conll, eng.testa (validation), test.txt."""
    return next((_PARTS[part] for part in re.split(r"[^a-z]+", file.name.lower()) if part in _PARTS), None)
