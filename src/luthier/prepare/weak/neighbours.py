"""Votes from the rows that people labelled: a row is probably what the labelled rows most like it are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from luthier.plugins import register
from luthier.prepare.weak.base import LABELERS, LabelerSpec, Source, Vote, WeakContext

_CHUNK = 2048


@register(LABELERS, "neighbours")
class Neighbours(LabelerSpec):
    """Find the labelled training rows most like a row (cosine of embeddings) and take their label. A labelled row's own
    label is left out when it is asked about itself. Silent while there are no labelled rows."""

    encoder: str = "starter:encoder"
    """Encoder model source that makes the vectors."""
    k: int = Field(default=3, ge=1)
    """Labelled rows that are looked at."""
    min_similarity: float = Field(default=0.5, ge=-1, le=1)
    """Labelled rows that are less alike than this (cosine) do not count."""
    min_share: float = Field(default=0.6, ge=0, le=1)
    """Share of the looked-at rows, weighed by likeness, that must have the label."""

    made_by: ClassVar = "pseudo"

    def inputs(self, root: Path) -> Mapping[str, str]:
        return encoder_inputs(self.encoder, root)

    def vote(self, context: WeakContext) -> Sequence[Source]:
        known = [at for at, row in enumerate(context.rows) if row.known]
        name = self.name or self.kind
        if not known:
            return [Source(name, [()] * len(context.rows))]
        vectors = embed(self.encoder, [row.text for row in context.rows], context)
        place_of = {at: place for place, at in enumerate(known)}
        votes: list[Vote] = []
        for begin in range(0, len(vectors), _CHUNK):
            alike = vectors[begin : begin + _CHUNK] @ vectors[known].T
            for at, likeness in enumerate(alike, begin):
                if at in place_of:
                    likeness[place_of[at]] = -2
                votes.append(self._vote(likeness, known, context))
        return [Source(name, votes)]

    def _vote(self, likeness: np.ndarray, known: Sequence[int], context: WeakContext) -> Vote:
        weights: dict[str, float] = {}
        total = 0.0
        for place in np.argsort(-likeness, kind="stable")[: self.k]:
            value = float(likeness[place])
            if value >= max(self.min_similarity, -1):
                total += max(value, 1e-6)
                for label in context.rows[known[place]].known or ():
                    weights[label] = weights.get(label, 0.0) + max(value, 1e-6)
        chosen = [label for label, weight in weights.items() if weight >= self.min_share * total]
        if context.multi_label:
            return tuple(sorted(chosen))
        return (max(chosen, key=lambda label: weights[label]),) if chosen else ()


def encoder_inputs(encoder: str, root: Path) -> Mapping[str, str]:
    """The fingerprint of an encoder's files."""
    from luthier.models.sources import resolve

    return {"encoder": resolve(encoder, purpose="encoder", root=root).fingerprint}


def embed(encoder: str, texts: Sequence[str], context: WeakContext) -> np.ndarray:
    """float32 [texts, d], unit length, remembered by text."""
    from luthier.index.embed import Encoder

    model = Encoder(encoder, root=context.root, cache=context.store.cache("embeddings"))
    return model.encode(texts, progress=context.progress, what="embed rows")
