"""What happens to one file inside a worker process: choose the reader, read, judge the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from luthier.ingest._files import File
from luthier.ingest._quality import BAD, judge_text
from luthier.ingest.base import NO, READERS, Refused, Source
from luthier.types import Document, encode

HEAD_BYTES = 16384


@dataclass(frozen=True)
class Limits:
    """The rules of the spec that change what is made of a file."""

    max_pages: int | None
    max_unpacked_mb: float
    min_words: int
    bad_pages: Literal["keep", "drop"]


@dataclass(frozen=True)
class Pictures:
    """What a reader that has pictures of its pages may leave to text recognition."""

    ocr: Literal["on", "off", "missing"] = "off"
    max_megapixels: float = 100


Portable = tuple[str, dict[str, Any], str | None]
"""Kind, fields, and the project folder of a reader that lives in a user's own file."""


def portable(readers: Iterable[Any]) -> tuple[Portable, ...]:
    """Readers as plain data: a class from a project file cannot be imported by name in another process."""
    found = []
    for reader in readers:
        fields = {name: value for name, value in reader.dump().items() if name != "kind"}
        local = None
        if ":" in reader.kind:
            file = getattr(sys.modules.get(type(reader).__module__), "__file__", None)
            depth = reader.kind.partition(":")[0].count(".") + 1
            local = str(Path(file).parents[depth - 1]) if file else os.getcwd()
        found.append((reader.kind, fields, local))
    return tuple(found)


def _load(readers: tuple[Portable, ...]) -> list[Any]:
    return [READERS.get(kind, local=Path(local) if local else None).model_validate(fields)
            for kind, fields, local in readers]


_loaded: dict[int, tuple[Any, list[Any]]] = {}


def load_readers(readers: tuple[Portable, ...]) -> list[Any]:
    """The readers, made once for each worker: the argument is the same object for every item."""
    if id(readers) not in _loaded:
        _loaded[id(readers)] = (readers, _load(readers))
    return _loaded[id(readers)][1]


def source_of(file: File, limits: Limits, pictures: Pictures) -> Source:
    """The file as a reader sees it. Raises Refused when it is not the one that was found, OSError when it is gone."""
    about = os.stat(file.path)
    if (about.st_size, about.st_mtime_ns) != (file.size, file.mtime_ns):
        raise Refused("changed", "the file changed while the folder was read; run again")
    with open(file.path, "rb") as opened:
        head = opened.read(HEAD_BYTES)
    return Source(path=Path(file.path), name=file.name, sha256=file.sha256, head=head, max_pages=limits.max_pages,
                  max_unpacked_mb=limits.max_unpacked_mb, ocr=pictures.ocr, max_megapixels=pictures.max_megapixels)


def read_file(readers: tuple[Portable, ...], limits: Limits, pictures: Pictures, file: File) -> dict[str, Any]:
    """A record as it is cached: kind, and either documents (JSON lines), words, pages, warnings, or reason, detail.

    `wanted` lists the pages that are left to text recognition, each with the number of its `document`.
    """
    kind = ""
    wanted: list[dict[str, Any]] = []
    try:
        source = source_of(file, limits, pictures)
        reader = choose(source, load_readers(readers))
        kind = reader.kind
        documents = []
        for number, document in enumerate(reader.read(source)):
            wanted += [{"document": number, **page} for page in document.meta.get("ocr_wanted", ())]
            meta = {key: value for key, value in document.meta.items() if key != "ocr_wanted"}
            left = {page["page"] for page in document.meta.get("ocr_wanted", ())}
            documents.append(_judged(replace(document, meta=meta), limits, left))
        words = sum(len(span.text.split()) for document in documents for span in document.spans)
        if words < limits.min_words and not wanted:
            dropped = any(document.meta.get("pages_dropped") for document in documents)
            raise Refused("empty", "every page was dropped as garbled" if dropped else
                          "no text found" if not words else f"only {words} words")
    except Refused as refused:
        return {"kind": kind, "reason": refused.reason, "detail": refused.detail}
    except RecursionError:
        return {"kind": kind, "reason": "corrupt", "detail": "nested too deeply"}
    except ImportError as error:
        return {"kind": "", "missing": (error.name or str(error)).partition(".")[0]}
    except PermissionError as error:
        return {"kind": "", "reason": "unreadable", "detail": error.strerror or str(error)}
    return {
        "kind": kind,
        "documents": [encode(document) for document in documents],
        "words": words,
        "pages": sum(document.meta.get("pages", 0) for document in documents),
        "warnings": sum(len(document.meta.get("page_warnings", ())) for document in documents),
        **({"wanted": wanted} if wanted else {}),
    }


def choose(source: Source, readers: Iterable[Any]) -> Any:
    """The reader that is surest of the file. Raises Refused (unsupported, encrypted or unknown-format)."""
    from luthier.ingest._formats import refuse_known, refuse_unknown

    refuse_known(source)
    score, reader = max(((reader.accepts(source), reader) for reader in readers), key=lambda pair: pair[0])
    if score == NO:
        refuse_unknown(source)
    return reader


def _judged(document: Document, limits: Limits, left: Collection[int] = ()) -> Document:
    """The document with warnings on the pages whose text looks wrong, and without those pages if so wished.

    Pages `left` to text recognition are dropped later, if that does no better.
    """
    pages: dict[int | None, list[str]] = {}
    for span in document.spans:
        if span.kind != "code":
            pages.setdefault(span.page, []).append(span.text)
    warnings = list(document.meta.get("page_warnings", ()))
    for page, texts in pages.items():
        known = {(warning["page"], warning["warning"]) for warning in warnings}
        warnings += [{"page": page, **warning} for warning in judge_text("\n".join(texts))
                     if (page, warning["warning"]) not in known]
    if not warnings:
        return document
    meta = {**document.meta, "page_warnings": sorted(warnings, key=lambda w: (w["page"] or 0, w["warning"]))}
    spans = document.spans
    if limits.bad_pages == "drop":
        bad = {warning["page"] for warning in warnings if warning["warning"] in BAD}
        bad -= set(left)
        spans = tuple(span for span in spans if span.page not in bad)
        if bad:
            meta["pages_dropped"] = sorted(page or 0 for page in bad)
    return replace(document, spans=spans, meta=meta)
