"""JSON Lines of conversations, the format of most fine-tuning services and trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from luthier.plugins import register
from luthier.prepare.formats._turns import Turns
from luthier.prepare.formats.base import FORMATS, Content
from luthier.types import Example


@register(FORMATS, "chat")
class Chat(Turns):
    """JSON Lines, one conversation a line: `messages` with role and content, the answer last; lineage beside it."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz")

    def row(self, example: Example) -> dict[str, Any]:
        from luthier.prepare.formats._flat import messages

        return {"messages": messages(example)}

    def write(self, path: Path, content: Content) -> int:
        return self.write_lines(path, content)
