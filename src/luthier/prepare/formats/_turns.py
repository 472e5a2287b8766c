"""What the formats of conversations share: which rows fit, lineage beside the turns, lines or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from luthier.prepare.formats.base import CHAT, Content, FileFormat, json_line, open_text
from luthier.task import TaskType
from luthier.types import Example


class Turns(FileFormat):
    """A file of conversations; one object a line, or, in a file that ends with .json, one array."""

    tasks: ClassVar[tuple[TaskType, ...]] = CHAT

    def row(self, example: Example) -> dict[str, Any]:
        """The conversation, without its lineage."""
        raise NotImplementedError

    def write_lines(self, path: Path, content: Content) -> int:
        from luthier.prepare.formats._flat import lineage

        array = path.name.lower().endswith((".json", ".json.gz"))
        count = 0
        with open_text(path) as file:
            for example in content.examples():
                if example.target is None:  # text to continue has no turns
                    content.left_out["text without an answer"] += 1
                    continue
                line = json_line({**self.row(example), **lineage(example, content)})
                file.write((("[\n" if not count else ",\n") + line[:-1]) if array else line)
                count += 1
            if array:
                file.write("\n]\n" if count else "[]\n")
        return count

    def lost(self, content: Content) -> tuple[str, ...]:
        weighted = any(example.weight != 1 for example in content.examples())
        return ("weights of the rows",) if weighted else ()

    def reader(self, content: Content) -> dict[str, Any]:
        return {"kind": "pairs"}
