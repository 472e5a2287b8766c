"""The contract of ingestion: what a reader is, what `ingest` makes, and how its result is read back.

A reader turns one file into documents. Which reader gets a file is decided by what the bytes look like first and by
the file's name second. Files are read in worker processes under limits, so no file can stop the others: one that
cannot be used becomes a `SetAside` with a reason.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from luthier.errors import DataError, MissingExtra
from luthier.executors import Executor, Failure, Local
from luthier.ingest.forgotten import REASON, Forgotten
from luthier.ingest.ocr.base import VERSION as OCR_VERSION
from luthier.ingest.ocr.base import Ocr
from luthier.plugins import Seam
from luthier.progress import Progress, Silent
from luthier.queues import Decided
from luthier.spec import Spec
from luthier.store import Artifact, Store, canonical
from luthier.types import Document, SetAside, Span, decode_document, digest, encode, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from luthier.ingest.ocr.corrections import Corrections
    from luthier.ingest.ocr.merge import Tally

READERS = Seam("reader", package="luthier.ingest")
VERSION = 3
"""Raised when what this package makes of the same files changes, beyond what a reader's own version tells."""

NO, MAYBE, LIKELY, SURE = 0, 1, 2, 3
"""What `Reader.accepts` says: not mine; readable as a last resort; by name and plausible content; by signature."""


class Refused(Exception):
    """Raised by a reader: this file cannot be used, and why. `reason` is a short slug that is counted."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file as a reader sees it."""

    path: Path
    """Where it lies on disk; may be opened, must not be changed."""
    name: str
    """Path relative to the ingested folder, with forward slashes."""
    sha256: str
    head: bytes
    """The first 16 KiB."""
    max_pages: int | None = None
    """Read no more pages, slides or sheets than this; None reads all."""
    max_unpacked_mb: float = 1000
    """What an archive may hold, unpacked (MB)."""
    ocr: Literal["on", "off", "missing"] = "off"
    """Whether pages may be left to text recognition: a reader with `picture` then lists them in its document's
    `meta["ocr_wanted"]` as {page, why}; `missing`: wanted, but nothing that reads is installed."""
    max_megapixels: float = 100
    """What a picture may have (millions of pixels)."""

    @property
    def suffix(self) -> str:
        """`.pdf`, in lower case."""
        return Path(self.name).suffix.lower()

    @functools.cached_property
    def members(self) -> frozenset[str]:
        """Names of the files inside, if this is a ZIP archive (all OOXML files are); else empty."""
        if not self.head.startswith(b"PK"):
            return frozenset()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return frozenset(archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return frozenset()

    def read_bytes(self) -> bytes:
        return self.path.read_bytes()

    def document(self, *, reader: str, media: str, spans: Iterable[Span], title: str = "",
                 meta: Mapping[str, Any] | None = None) -> Document:
        """A document of this file. Without a title, its first heading or its file name serves."""
        kept = tuple(replace(span, text=_storable(span.text)) for span in spans if span.text.strip())
        first = next((span.text for span in kept if span.kind == "heading"), "")
        stem = Path(self.name).stem.replace("_", " ").strip()
        title = _storable(title or first or stem)
        return Document(id=self.sha256[:16], path=self.name, sha256=self.sha256, media=media, reader=reader,
                        title=" ".join(title.split())[:300], spans=kept,
                        meta={_storable(key): _storable(value) for key, value in (meta or {}).items()
                              if value not in (None, "", [], {})})


def _storable(value: Any) -> Any:
    """Strings without half characters and NULs, which JSON and some fonts can produce and nothing downstream takes."""
    if isinstance(value, str):
        text = value.replace("\x00", "") if "\x00" in value else value
        return text if text.isprintable() else text.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list | tuple) else value


class Reader(Protocol):
    """One file format. A reader is a `Spec` registered at `READERS`; its fields are its options."""

    version: ClassVar[int]
    """Raised when the reader's code changes what it makes: its files are then read again."""

    def accepts(self, source: Source) -> int:
        """NO, MAYBE, LIKELY or SURE, from the head, the name and the archive members alone; cheap."""
        ...

    def read(self, source: Source) -> Iterator[Document]:
        """Yield the file's documents (most formats: one). Raises `Refused` for a file that cannot be used."""
        ...


class Ingest(Spec):
    """Which files become documents, and within which limits."""

    sources: tuple[str, ...] = ("documents",)
    """Folders and files to read, relative to the project folder; an empty list for a project that learns from pairs."""
    include: tuple[str, ...] = ()
    """Read only files that match one of these patterns, such as `*.pdf` or `manuals/*`; empty reads all."""
    exclude: tuple[str, ...] = ()
    """Leave out files that match one of these patterns; a folder's name leaves out the folder."""
    max_mb: float = Field(default=200, gt=0)
    """Larger files are set aside as too-large (MB)."""
    max_unpacked_mb: float = Field(default=1000, gt=0)
    """An office file that unpacks to more than this is set aside as a zip-bomb (MB)."""
    max_pages: int | None = Field(default=None, ge=1)
    """Read at most this many pages, slides or sheets of a file and note the rest in the document; None reads all."""
    min_words: int = Field(default=1, ge=1)
    """Files with fewer words are set aside as empty."""
    bad_pages: Literal["keep", "drop"] = "keep"
    """What happens to pages whose text is garbled, glued together or set letter by letter: `keep` flags them, `drop`
    leaves them out."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest time for one file (seconds)."""
    memory_mb: float = Field(default=2000, ge=100)
    """Most memory for reading one file (MiB)."""
    workers: int = Field(default=0, ge=0)
    """Files read at the same time; 0 is one per processor."""
    ocr: Ocr = Field(default_factory=Ocr)
    """Text recognition, for images and for PDF pages without usable text."""
    readers: tuple[Annotated[Reader, READERS], ...] = ()
    """Readers with options of your own, and your own readers; the built-in ones are always there."""


_NOTHING = Forgotten()


def ingest(sources: Sequence[str | Path], spec: Ingest | None = None, *, store: Store,
           progress: Progress | None = None, executor: Executor | None = None, forgotten: Forgotten = _NOTHING,
           corrections: Sequence[Decided] = ()) -> Artifact:
    """Read every file below `sources` into documents; the artifact holds documents.jsonl and set_aside.jsonl.

    Documents that are `forgotten` are set aside unread. The summary counts documents, set_aside {reason: n}, ignored,
    words, pages, page_warnings, readers {kind: n}, and ocr where pictures were read (`ocr.run.summary_of`). Lines of
    pictures that need a person are in review.jsonl; `corrections` is what people decided about such lines before.
    A changed file alone is read again; the same files are a cache hit that opens no parser. Raises UsageError for a
    source that does not exist, DataError when not one file can be used (no sources at all, for a project that learns
    from pairs only, is no error), MissingExtra when a reader's library is not
    installed.
    """
    from luthier.ingest._files import collect
    from luthier.ingest.ocr.corrections import Corrections
    from luthier.ingest.ocr.run import summary_of, write_tally

    spec, progress = spec or Ingest(), progress or Silent()
    decided = Corrections(corrections)
    found = collect([Path(source) for source in sources], spec)
    for file in [file for file in found.files if forgotten.document(file.name, file.sha256)]:
        found.files.remove(file)
        found.set_aside.append(SetAside(path=file.name, reason=REASON, detail="labels/forgotten.jsonl names it"))
    readers = resolve_readers(spec)
    inputs = {file.name: file.sha256 for file in found.files} | {
        aside.path: f"{aside.reason}: {aside.detail}" for aside in found.set_aside}
    plain = spec.dump()
    for name in ("sources", "include", "exclude", "workers"):  # seen in the inputs, or without effect on the result
        del plain[name]
    # What else the result depends on; not among the inputs, where every name is a file's.
    plain["reads_with"] = f"{spec.ocr.identity()}, order {OCR_VERSION}" if spec.ocr.wanted else ""
    plain["corrections"] = digest(*sorted(map(encode, decided.by_id.values()))) if decided else ""
    plain["readers"] = [{**reader.dump(), "version": reader.version} for reader in readers.values()]

    def make(folder: Path) -> dict[str, Any]:
        records, asides, tally = _read_all(found.files, spec, readers, store, progress, executor, decided)
        asides = sorted([*found.set_aside, *asides], key=lambda aside: aside.path)
        reasons = Counter(aside.reason for aside in asides)
        if sources and not records:
            raise DataError(_nothing_usable(sources, asides, found.ignored))
        with (folder / "documents.jsonl").open("w", encoding="utf-8", errors="surrogatepass") as file:
            for record in records:
                file.writelines(line + "\n" for line in record["documents"])
        write_jsonl(folder / "set_aside.jsonl", asides)
        write_tally(folder, tally)
        return {
            "documents": sum(len(record["documents"]) for record in records),
            "set_aside": dict(sorted(reasons.items())),
            "ignored": found.ignored,
            "words": sum(record["words"] for record in records),
            "pages": sum(record["pages"] for record in records),
            "page_warnings": sum(record["warnings"] for record in records),
            "readers": dict(sorted(Counter(record["kind"] for record in records).items())),
            **summary_of(tally, decided),
        }

    made = store.build("ingest", version=VERSION, spec=plain, inputs=inputs, make=make)
    if made.fresh:
        _tell(made, progress)
    return made


def read_files(sources: Sequence[str | Path], spec: Ingest | None = None, *, store: Store,
               progress: Progress | None = None, executor: Executor | None = None
               ) -> tuple[list[Document], list[SetAside]]:
    """(documents, files that could not be used) of `sources`, by path; no artifact, no error when none is usable.

    Each file is cached as in `ingest`. For makers that read a user's folders, where bad files are rows to set aside.
    """
    from luthier.ingest._files import collect

    spec = spec or Ingest()
    found = collect([Path(source) for source in sources], spec)
    records, asides, _ = _read_all(found.files, spec, resolve_readers(spec), store, progress or Silent(), executor)
    documents = [decode_document(json.loads(line)) for record in records for line in record["documents"]]
    return documents, sorted([*found.set_aside, *asides], key=lambda aside: aside.path)


def read_documents(artifact: Artifact) -> list[Document]:
    """The documents, ordered by path."""
    return [decode_document(data) for data in read_jsonl(artifact.path / "documents.jsonl")]


def read_set_aside(artifact: Artifact) -> list[SetAside]:
    """The files that could not be used, with reasons, ordered by path."""
    return [SetAside(**data) for data in read_jsonl(artifact.path / "set_aside.jsonl")]


def resolve_readers(spec: Ingest) -> dict[str, Any]:
    """Every reader by kind: the built-in ones at their defaults, replaced or joined by those of the spec."""
    readers: dict[str, Any] = {kind: cls() for kind, cls in READERS.kinds().items()}
    return dict(sorted((readers | {reader.kind: reader for reader in spec.readers}).items()))  # type: ignore[attr-defined]


def _read_all(files: Sequence[Any], spec: Ingest, readers: Mapping[str, Any], store: Store, progress: Progress,
              executor: Executor | None, decided: Corrections | None = None
              ) -> tuple[list[dict[str, Any]], list[SetAside], Tally]:
    """Records of the usable files in order, the others, and what text recognition did; what the cache knows is not
    read again."""
    from luthier.ingest._read import Limits, Pictures, portable, read_file
    from luthier.ingest.ocr.corrections import Corrections
    from luthier.ingest.ocr.run import recognise

    cache = store.cache("ingest")
    limits = Limits(max_pages=spec.max_pages, max_unpacked_mb=spec.max_unpacked_mb, min_words=spec.min_words,
                    bad_pages=spec.bad_pages)
    state = "off" if not spec.ocr.wanted else "on" if spec.ocr.identity() else "missing"
    pictures = Pictures(ocr=state, max_megapixels=float(spec.ocr.max_megapixels))
    # Which reader a file gets depends on the set of readers; what it makes of it on that reader alone.
    table = canonical({kind: reader.version for kind, reader in readers.items()})
    rules = canonical([VERSION, vars(limits)])

    def kind_key(file: Any) -> str:
        return digest("kind", table, file.sha256, file.name, length=40)

    def record_key(file: Any, kind: str) -> str:
        reader = readers[kind]
        mine = canonical([reader.dump(), reader.version, *([vars(pictures)] if hasattr(reader, "picture") else [])])
        return digest("record", rules, mine, file.sha256, file.name, length=40)

    records: dict[str, dict[str, Any]] = {}
    fresh = []
    for file in files:
        kind = (cache.get(kind_key(file)) or b"").decode()
        known = cache.get(record_key(file, kind)) if kind in readers else None
        if known is None:
            fresh.append(file)
        else:
            records[file.name] = json.loads(known)
    work = functools.partial(read_file, portable(readers.values()), limits, pictures)
    with progress.track("ingest", len(files), unit="files", done=len(files) - len(fresh)) as bar:
        mapped = (executor or Local(spec.workers)).map
        results = mapped(work, fresh, timeout_s=spec.timeout_s, memory_mb=spec.memory_mb) if fresh else ()
        for file, result in results:
            bar.advance(1)
            if isinstance(result, Failure):
                records[file.name] = {"reason": result.reason, "detail": result.detail}
                continue
            if "missing" in result:
                raise MissingExtra(f"reading {file.name} needs the Python package '{result['missing']}'; "
                                   "install it with: pip install 'luthier[ingest]'")
            records[file.name] = result
            if result["kind"] and result.get("reason") != "changed":
                cache.put(record_key(file, result["kind"]), json.dumps(result).encode())
                cache.put(kind_key(file), result["kind"].encode())
    tally = recognise(files, records, spec, readers, limits, pictures, decided or Corrections(), store=store,
                      progress=progress, executor=executor)
    asides = [SetAside(path=name, reason=record["reason"], detail=record["detail"])
              for name, record in records.items() if "reason" in record]
    return [records[file.name] for file in files if "reason" not in records[file.name]], asides, tally


ADVICE = {
    "encrypted": "save them without a password",
    "corrupt": "open them in their own program and save them again",
    "no-text-layer": "scans and images need text recognition: pip install 'luthier[ocr]', ingest.ocr.engine: auto",
    "ocr-failed": "text recognition failed; the detail says why",
    "too-many-pixels": "raise ingest.ocr.max_megapixels or make them smaller",
    "empty": "they hold no text",
    "too-large": "raise ingest.max_mb or split them",
    "unknown-format": "save them as PDF, DOCX, HTML, Markdown or text",
    "unsupported": "save them as DOCX, XLSX, PPTX or PDF",
    "timeout": "raise ingest.timeout_s",
    "memory": "raise ingest.memory_mb",
    "zip-bomb": "raise ingest.max_unpacked_mb if you trust them",
    "unreadable": "give yourself the permission to read them",
    "unsafe-link": "copy the files into the folder",
    "forgotten": "take their lines out of labels/forgotten.jsonl to read them again",
}


def _nothing_usable(sources: Sequence[str | Path], asides: Sequence[SetAside], ignored: int) -> str:
    where = ", ".join(str(source) for source in sources)
    if not asides:
        left_out = f" ({ignored} hidden, temporary or excluded files were ignored)" if ignored else ""
        return (f"there are no documents in {where}{left_out}; put PDF, DOCX, PPTX, XLSX, HTML, Markdown, text, CSV, "
                "JSON, XML, EML or image files there")
    groups: dict[str, list[str]] = {}
    for aside in asides:
        groups.setdefault(aside.reason, []).append(aside.path)
    parts = []
    for reason, paths in sorted(groups.items()):
        named = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
        advice = f": {ADVICE[reason]}" if reason in ADVICE else ""
        parts.append(f"{len(paths)} {reason} ({named}){advice}")
    return f"none of the {len(asides)} files in {where} could be used: " + "; ".join(parts)


def _tell(made: Artifact, progress: Progress) -> None:
    """Name what was set aside, so that nobody has to look for it."""
    asides = read_set_aside(made)
    for aside in asides[:NAMED]:
        progress.say(f"  set aside {aside.path}: {aside.reason}{f' ({aside.detail})' if aside.detail else ''}",
                     path=aside.path, reason=aside.reason)
    if len(asides) > NAMED:
        progress.say(f"  and {len(asides) - NAMED} more; see them with: luthier show ingest")
    flagged = made.summary["page_warnings"]
    if flagged:
        progress.say(f"  {flagged} page{'s' * (flagged > 1)} with doubtful text; see page_warnings in documents.jsonl",
                     page_warnings=flagged)


NAMED = 5
"""Files set aside that are named at the end of a run."""
