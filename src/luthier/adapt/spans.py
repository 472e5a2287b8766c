"""From a tagger's token codes to labelled pieces of the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import LabelModel
from luthier.types import Example, Tag


def spans_of(names: Sequence[str], offsets: Sequence[tuple[int, int]]) -> tuple[Tag, ...]:
    """BIO names of the tokens as character spans. An I that continues nothing of its label begins a span, as conlleval
    and seqeval (default mode) read it; special tokens (empty offsets) are skipped."""
    found: list[Tag] = []
    opened: list[int] | None = None
    label = ""
    for name, (start, end) in zip(names, offsets):
        if end <= start:
            continue
        kind, _, of = name.partition("-")
        if kind == "I" and opened is not None and of == label:
            opened[1] = end
            continue
        if opened is not None:
            found.append(Tag(start=opened[0], end=opened[1], label=label))
        opened, label = ([start, end], of) if kind in ("B", "I") else (None, "")
    if opened is not None:
        found.append(Tag(start=opened[0], end=opened[1], label=label))
    return tuple(found)


def decode_spans(model: LabelModel, examples: Sequence[Example], rows: Sequence[Row], logits: Sequence[np.ndarray]
                 ) -> list[tuple[Tag, ...]]:
    """The spans that the model marks in each text; what was cut off holds none. White space at a span's ends, which
    some tokenizers count to the word, is left out."""
    found = []
    for example, row, values in zip(examples, rows, logits):
        text = str(example.input)
        offsets = model.processor.offsets(text)[: row.size]  # type: ignore[attr-defined]
        names = [model.labels[int(code)] for code in values.argmax(-1)]
        found.append(tuple(_trimmed(tag, text) for tag in spans_of(names, offsets)))
    return found


def _trimmed(tag: Tag, text: str) -> Tag:
    piece = text[tag.start : tag.end]
    start = tag.start + len(piece) - len(piece.lstrip())
    return Tag(start=start, end=max(start + 1, tag.start + len(piece.rstrip())), label=tag.label)
