"""Rows that a person wants forgotten (`luthier forget`): known by a digest of what they say, and left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from luthier.ingest.forgotten import REASON, Forgotten
from luthier.models.sources import file_hash
from luthier.prepare.text import normalise
from luthier.shelf import Sink
from luthier.types import Dropped, Example, digest

_HASH = re.compile(r"[0-9a-f]{64}")


def row_digest(example: Example, root: Path) -> str:
    """Stands for what a row says, without saying it: its text (case and punctuation aside) and its written answer, or
    the bytes of its image. Classes and tags do not count, so a row stays forgotten when it is labelled anew."""
    if example.image:
        name = Path(example.image).name  # an image that Luthier wrote is named by its hash
        return digest("image", name if _HASH.fullmatch(name) else file_hash(root / example.image))
    said = example.input if isinstance(example.input, str) else "\n".join(turn.content for turn in example.input
                                                                          if turn.role != "system")
    return digest("row", normalise(said) or said.strip(), normalise(example.target or ""))


def drop_forgotten(made: Iterable[Example], forgotten: Forgotten, dropped: Sink[Dropped], *, root: Path
                   ) -> Iterator[Example]:
    """The rows that may be learned; the others are counted among the dropped, without their text."""
    for example in made:
        if forgotten.rows and row_digest(example, root) in forgotten.rows:
            dropped.append(Dropped(item=example.origin.where or example.id, step=example.origin.step, reason=REASON,
                                   detail="labels/forgotten.jsonl names it"))
        else:
            yield example
