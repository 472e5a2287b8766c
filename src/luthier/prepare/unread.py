"""Text in doubt stays out: lines of scans that nobody has looked at become neither examples nor passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from luthier.prepare.steps import Kept
from luthier.types import Document, Dropped

STEP = "reading"


def drop_unread(documents: Iterable[Document]) -> Iterator[Kept[Document] | Dropped]:
    """Every document with as many spans as before, those in doubt emptied: `unread-handwriting`, `low-confidence`.

    A person who accepts or corrects the lines in `luthier review` (queue `corrections`) brings them back at the next
    run; `ingest.ocr.use_unsure` uses them unseen.
    """
    for document in documents:
        doubtful = {at for at, span in enumerate(document.spans) if span.doubt}
        for at in sorted(doubtful):
            span = document.spans[at]
            page = f", page {span.page}" if span.page is not None else ""
            yield Dropped(item=f"{document.id}#{at}", step=STEP, reason=span.doubt, detail=f"{document.path}{page}",
                          text=span.text[:300])
        if doubtful:
            document = replace(document, spans=tuple(replace(span, text="") if at in doubtful else span
                                                     for at, span in enumerate(document.spans)))
        yield Kept(document)
