"""Blocks that a site or a mail system puts on every page: menus, footers, disclaimers. One copy of each is kept.

Extractors that guess the main content of one page drop a quarter of technical text (measured, shared facts §7);
comparing pages with each other needs no guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pydantic import Field

from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.text import normalise
from luthier.spec import Spec
from luthier.types import Document, Dropped, digest


class Boilerplate(Spec):
    """Removal of blocks that repeat across documents of one format."""

    media: tuple[str, ...] = ("text/html", "application/xhtml+xml", "message/rfc822")
    """Media types whose documents are compared with each other; an empty list switches the step off."""
    repeated_on: float = Field(default=0.5, gt=0, le=1)
    """A block (paragraph, list, table or heading) is boilerplate when it stands on at least this share of them."""
    min_documents: int = Field(default=5, ge=2)
    """And on at least this many documents."""

    def apply(self, items: Iterable[Document], ctx: StepContext) -> Iterator[Kept[Document] | Dropped]:
        """Yield every document with the same number of spans, repeated blocks emptied but for the first copy."""
        documents = items if isinstance(items, Sequence) else [*items]
        needed: dict[str, float] = {}
        seen: Counter[tuple[str, str]] = Counter()
        for media in self.media:
            inside = 0
            for document in documents:
                if document.media == media:
                    inside += 1
                    seen.update({(media, _mark(span.text)) for span in document.spans if span.text.strip()})
            needed[media] = max(self.min_documents, self.repeated_on * inside)
        kept_once: set[tuple[str, str]] = set()
        for document in documents:
            if document.media not in needed:
                yield Kept(document)
                continue
            spans = list(document.spans)
            for at, span in enumerate(spans):
                key = (document.media, _mark(span.text))
                if not span.text.strip() or seen[key] < needed[document.media]:
                    continue
                if key not in kept_once:
                    kept_once.add(key)
                    continue
                spans[at] = replace(span, text="")
                yield Dropped(item=f"{document.id}#{at}", step="boilerplate", reason="on-most-pages",
                              detail=document.path, text=span.text[:300])
            yield Kept(document if tuple(spans) == document.spans else replace(document, spans=tuple(spans)))


def _mark(text: str) -> str:
    return digest(normalise(text) or text)
