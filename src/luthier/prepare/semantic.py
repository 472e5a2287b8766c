"""Passages that say the same in other words, by the cosine of their embeddings: a person decides.

Two texts that are close in meaning may be two products or two opinions, so nothing is dropped by a number alone: each
suspected pair becomes an item of the review queue "duplicates" (`luthier review`), and only what a person calls the
same is merged at the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.prepare.dedupe import figures_of
from luthier.prepare.text import normalise
from luthier.progress import Progress
from luthier.queues import Decided, ReviewItem, decided_hash, latest, read_decided
from luthier.shelf import Sink, view
from luthier.spec import Spec
from luthier.store import Cache
from luthier.types import Dropped, Passage, digest

if TYPE_CHECKING:
    import numpy as np

QUEUE = "duplicates"
SAME, DIFFERENT = "same", "different"
_BLOCK = 1024  # rows of the similarity matrix that are held at a time


class Semantic(Spec):
    """The search for passages that mean the same."""

    mode: Literal["off", "report"] = "off"
    """`report`: suspected pairs go to `luthier review` (queue "duplicates"), and what people called the same is merged;
    `off`: no search, and such decisions rest."""
    threshold: float = Field(default=0.9, ge=0.5, le=1)
    """Cosine of the embeddings from which on a pair is suspected. At 0.9 and MiniLM mostly rewordings are found."""
    encoder: str = "starter:encoder"
    """The encoder: a starter, a local folder, or a model of the hub cache."""
    most: int = Field(default=200, ge=1)
    """At most so many undecided pairs are asked about, the closest first."""

    def inputs(self, root: Path) -> dict[str, str]:
        """What the result depends on beside the settings: people's decisions and the encoder's weights."""
        if self.mode == "off":
            return {}
        from luthier.models.sources import resolve

        files = resolve(self.encoder, purpose="encoder", root=root)
        return {"duplicates": decided_hash(root, QUEUE), "encoder": files.fingerprint}

    def merge(self, passages: Sequence[Passage], *, root: Path, cache: Cache, progress: Progress,
              dropped: Sink[Dropped]) -> tuple[Sequence[Passage], list[ReviewItem]]:
        """(passages without those that a person called the same as an earlier one, what to ask about)."""
        if self.mode == "off" or len(passages) < 2:
            return passages, []
        from luthier.index.embed import Encoder

        vectors = Encoder(self.encoder, root=root, cache=cache).encode(
            [passage.text for passage in passages], progress=progress, what="compare meanings")
        known = latest(read_decided(root, QUEUE))
        gone: dict[int, tuple[int, Decided]] = {}
        asked: list[ReviewItem] = []
        for one, other, cosine in close_pairs(vectors, self.threshold):
            if one in gone or other in gone:
                continue
            first, second = passages[one], passages[other]
            if figures_of(first.text) != figures_of(second.text):
                continue  # other numbers: other facts
            id = pair_id(first.text, second.text)
            said = verdict(known.get(id))
            if said == SAME:
                gone[other] = (one, known[id])
            elif not said:
                asked.append(ReviewItem(
                    queue=QUEUE, id=id, text=first.text, context=second.text, proposal=SAME, choices=(SAME, DIFFERENT),
                    confidence=round(cosine, 3), where=f"{first.citation} and {second.citation}", path=first.path,
                    page=first.page, reason=f"may say the same in other words (cosine {cosine:.2f})",
                    notes={"other": second.id, "passage": first.id}))
        asked.sort(key=lambda item: (-item.confidence, item.id))
        for at, (one, decided) in sorted(gone.items()):
            dropped.append(Dropped(
                item=passages[at].id, step="semantic", reason="same-meaning", text=passages[at].text[:300],
                detail=f"{passages[at].citation} says what {passages[one].id} ({passages[one].citation}) says: "
                       f"{decided.by or 'a person'} decided ({decided.source})"))
        return view(passages, (at for at in range(len(passages)) if at not in gone)), asked[: self.most]


def verdict(decided: Decided | None) -> str:
    """`same`, `different`, or empty where nobody decided."""
    if decided is None:
        return ""
    if decided.verdict == "accept":
        return SAME
    return SAME if decided.verdict == "edit" and decided.value == SAME else DIFFERENT


def pair_id(one: str, other: str) -> str:
    """Stands for two texts, in whichever order, wherever they stand."""
    return digest("duplicate", *sorted((normalise(one), normalise(other))))


def close_pairs(vectors: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """(i, j, cosine) with i < j of unit vectors at least so close, in order; a block of rows is in memory at a time."""
    import numpy as np

    found: list[tuple[int, int, float]] = []
    for begin in range(0, len(vectors), _BLOCK):
        cosines: Any = vectors[begin : begin + _BLOCK] @ vectors[begin:].T
        rows, columns = np.nonzero(cosines >= threshold)
        for row, column in zip(rows.tolist(), columns.tolist()):
            if row < column:
                found.append((begin + row, begin + column, min(1.0, float(cosines[row, column]))))
    return found
