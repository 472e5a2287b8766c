"""What goes before anything is cut or made: older versions, other languages, bad text, and pairs to ask about.

One place that `luthier.prepare.build` calls, so that the order of these steps is read here: versions → language of
each document → (cleaning, chunking) → languages that are kept → quality → duplicates by words → by meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.prepare import language
from luthier.prepare.steps import StepContext
from luthier.prepare.versions import Superseded
from luthier.queues import ReviewItem
from luthier.shelf import Memory, Sink
from luthier.store import Cache
from luthier.types import Document, Dropped, Passage, write_jsonl

if TYPE_CHECKING:
    from luthier.prepare.base import Prepare

SUPERSEDED = "superseded.jsonl"


@dataclass
class Sifted:
    """What these steps found, for the artifact and the data card."""

    languages: Mapping[str, int] = field(default_factory=dict)
    superseded: list[Superseded] = field(default_factory=list)
    quality: list[Mapping[str, Any]] = field(default_factory=list)
    review: list[ReviewItem] = field(default_factory=list)

    def card(self) -> dict[str, Any]:
        """The figures of the data card; of several runs (stable and volatile passages) the quality is summed."""
        quality: dict[str, Any] = {}
        for one in self.quality:
            if not quality:
                quality = dict(one)
                continue
            reasons = {name: quality["reasons"].get(name, 0) + one["reasons"].get(name, 0)
                       for name in {**quality["reasons"], **one["reasons"]}}
            quality |= {"n": quality["n"] + one["n"], "dropped": quality["dropped"] + one["dropped"],
                        "bins": [a + b for a, b in zip(quality["bins"], one["bins"])], "reasons": reasons,
                        "worst": sorted([*quality["worst"], *one["worst"]], key=lambda row: row["score"])[:5]}
        return {"languages": dict(self.languages), "superseded": [asdict(one) for one in self.superseded],
                "quality": quality,
                "suspected_duplicates": len(self.review)}


def documents_of(documents: Sequence[Document], spec: Prepare, dropped: Sink[Dropped], memory: Memory
                 ) -> tuple[Sequence[Document], Sifted]:
    """The documents that count, each with its language."""
    current, superseded, gone = spec.versions.choose(documents)
    dropped.extend(gone)
    marked = memory.documents()
    marked.extend(language.mark(current))
    return marked, Sifted(languages=language.counts(marked), superseded=superseded)


def passages_of(passages: Sequence[Passage], documents: Iterable[Document], spec: Prepare, found: Sifted,
                dropped: Sink[Dropped]) -> Sequence[Passage]:
    """The passages in a language that is kept and of a quality that can be read."""
    kept = passages
    if spec.languages:
        of_document = {document.id: str(document.meta.get(language.KEY) or "") for document in documents}
        kept = language.keep(kept, spec.languages, of_document, dropped)
    kept, figures = spec.quality.keep(kept, dropped)
    found.quality.append(figures)
    return kept


def one_of_each(passages: Sequence[Passage], spec: Prepare, found: Sifted, dropped: Sink[Dropped], *,
                ctx: StepContext, root: Path, cache: Cache) -> Sequence[Passage]:
    """The passages without repeats: by words, and where a person said so, by meaning."""
    unlike = ctx.memory.passages()
    for one in spec.dedupe.apply(passages, ctx):
        if isinstance(one, Dropped):
            dropped.append(one)
        else:
            unlike.append(one.item)
    kept, asked = spec.semantic.merge(unlike, root=root, cache=cache, progress=ctx.progress, dropped=dropped)
    found.review += asked
    return kept


def write_superseded(folder: Path, found: Sifted) -> None:
    """Which documents gave way to which; their texts stay in the artifact of ingest. No file where there are none."""
    if found.superseded:
        write_jsonl(folder / SUPERSEDED, found.superseded)
