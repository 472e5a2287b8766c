"""Alpaca: instruction, input, output; earlier turns as history."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from luthier.plugins import register
from luthier.prepare.formats._turns import Turns
from luthier.prepare.formats.base import FORMATS, Content
from luthier.types import Example


@register(FORMATS, "alpaca")
class Alpaca(Turns):
    """Alpaca: `instruction`, `input` (always empty: the question holds everything), `output`; a system message as
    `system` and earlier turns as `history`, as LLaMA-Factory writes them. A JSON array, or one object a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

    def row(self, example: Example) -> dict[str, Any]:
        row: dict[str, Any] = {"instruction": example.question, "input": "", "output": example.target}
        if isinstance(example.input, str):
            return row
        system = next((turn.content for turn in example.input if turn.role == "system"), "")
        said = [turn.content for turn in example.input if turn.role != "system"][:-1]
        history = [[asked, told] for asked, told in zip(said[::2], said[1::2], strict=True)]
        return {**row, **({"system": system} if system else {}), **({"history": history} if history else {})}

    def write(self, path: Path, content: Content) -> int:
        return self.write_lines(path, content)

    def lost(self, content: Content) -> tuple[str, ...]:
        many = any(not isinstance(one.input, str) and len(one.input) > 2 for one in content.examples())
        return (*super().lost(content), *(("system messages and earlier turns stand in `system` and `history`, which "
                                           "not every Alpaca reader knows",) if many else ()))
