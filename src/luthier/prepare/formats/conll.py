"""CoNLL column files: a word and its tag a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from luthier.plugins import register
from luthier.prepare.formats.base import FORMATS, Content, FileFormat, json_line, open_text, plain
from luthier.task import TaskType
from luthier.types import Example

_WORD = re.compile(r"\S+")


@register(FORMATS, "conll")
class ConllFiles(FileFormat):
    """CoNLL: a word, a tab and its tag a line, an empty line after each text, lineage in a comment above it; a folder
    with one file a split. A word ends at white space and where a tag begins or ends."""

    scheme: Literal["iob2", "bioes"] = "iob2"
    """Prefixes of the word tags: B-, I- and O, or B-, I-, E-, S- and O."""

    tasks: ClassVar[tuple[TaskType, ...]] = ("tag",)

    def write(self, path: Path, content: Content) -> int:
        from luthier.prepare.formats._flat import lineage

        path.mkdir(parents=True)
        files: dict[str, Any] = {}
        count = 0
        try:
            for example in content.examples():
                if example.split not in files:
                    files[example.split] = open_text(path / f"{example.split}.conll")
                file = files[example.split]
                file.write("# " + json_line(lineage(example, content)))
                for word, tag in words(example, self.scheme):
                    file.write(f"{word}\t{tag}\n" if example.spans is not None else f"{word}\n")
                file.write("\n")
                count += 1
        finally:
            for file in files.values():
                file.close()
        return count

    def lost(self, content: Content) -> tuple[str, ...]:
        changed = sum(" ".join(word for word, _ in words(example, self.scheme)) != example.input
                      for example in content.examples())
        weighted = any(example.weight != 1 or example.groups for example in content.examples())
        return (*((f"the white space of {changed:,} texts: words are read back with one space between them",)
                  if changed else ()), *(("weights and groups of the rows",) if weighted else ()))

    def reader(self, content: Content) -> dict[str, Any]:
        return {"kind": "conll"}


def words(example: Example, scheme: str) -> Iterator[tuple[str, str]]:
    """The words of a text with their tags, cut at white space and at the edges of tagged pieces."""
    text, spans = plain(str(example.input)), example.spans or ()
    at = 0
    for span in spans:
        yield from ((word, "O") for word in _WORD.findall(text[at:span.start]))
        inside = _WORD.findall(text[span.start:span.end])
        for number, word in enumerate(inside):
            last = number == len(inside) - 1
            if scheme == "bioes":
                prefix = ("S" if last else "B") if number == 0 else "E" if last else "I"
            else:
                prefix = "I" if number else "B"
            yield word, f"{prefix}-{span.label}"
        at = span.end
    yield from ((word, "O") for word in _WORD.findall(text[at:]))
