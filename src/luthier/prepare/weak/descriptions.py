"""Votes from what the labels mean: a row is probably the class whose description it is most like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from luthier.plugins import register
from luthier.prepare.weak.base import LABELERS, LabelerSpec, Source, Vote, WeakContext
from luthier.prepare.weak.neighbours import embed, encoder_inputs


@register(LABELERS, "descriptions")
class Descriptions(LabelerSpec):
    """Compare a row with the descriptions of the labels (`weak.descriptions`, else their names) by the cosine of their
    embeddings. Needs no labelled row; good descriptions are half of it."""

    encoder: str = "starter:encoder"
    """Encoder model source that makes the vectors."""
    min_similarity: float = Field(default=0.3, ge=-1, le=1)
    """Below this cosine with the likeliest description it says nothing."""
    min_margin: float = Field(default=0.03, ge=0, le=2)
    """The likeliest description must be ahead of the next one by this much; with several classes a row, all that are
    this close to the likeliest one are voted for."""

    made_by: ClassVar = "pseudo"

    def inputs(self, root: Path) -> Mapping[str, str]:
        return encoder_inputs(self.encoder, root)

    def vote(self, context: WeakContext) -> Sequence[Source]:
        said = embed(self.encoder, [context.descriptions[label] for label in context.labels], context)
        vectors = embed(self.encoder, [row.text for row in context.rows], context)
        return [Source(self.name or self.kind, [self._vote(row, context) for row in vectors @ said.T])]

    def _vote(self, likeness: np.ndarray, context: WeakContext) -> Vote:
        order = np.argsort(-likeness, kind="stable")
        top = float(likeness[order[0]])
        if top < self.min_similarity:
            return ()
        close = [int(at) for at in order if likeness[at] > top - self.min_margin or at == order[0]]
        if context.multi_label:
            return tuple(context.labels[at] for at in sorted(close))
        return (context.labels[int(order[0])],) if len(close) == 1 else ()
