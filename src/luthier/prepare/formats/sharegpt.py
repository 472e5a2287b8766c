"""ShareGPT: conversations of `from` and `value`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from luthier.plugins import register
from luthier.prepare.formats._turns import Turns
from luthier.prepare.formats.base import FORMATS, Content
from luthier.types import Example

_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


@register(FORMATS, "sharegpt")
class ShareGpt(Turns):
    """ShareGPT: `conversations` of `from` (system, human, gpt) and `value`; a JSON array, or one object a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".jsonl.gz", ".json.gz")

    def row(self, example: Example) -> dict[str, Any]:
        from luthier.prepare.formats._flat import messages

        return {"conversations": [{"from": _NAMES[turn["role"]], "value": turn["content"]}
                                  for turn in messages(example)]}

    def write(self, path: Path, content: Content) -> int:
        return self.write_lines(path, content)
