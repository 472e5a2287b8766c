"""The nouns every stage shares. Plain frozen dataclasses, one JSON object per line on disk.

Nothing here imports a heavy library: a document read on one machine is the same record on another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
SpanKind = Literal["heading", "paragraph", "list", "table", "code", "quote", "caption", "row"]
Maker = Literal["human", "document", "rule", "teacher", "pseudo"]


def digest(*parts: str, length: int = 16) -> str:
    """Stable short hexadecimal id of some strings (sha256, first `length` digits)."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:length]


def digest_each(parts: Iterable[str], *, length: int = 16) -> str:
    """`digest` of strings that come one after another and need not fit into memory."""
    found, first = hashlib.sha256(), True
    for part in parts:
        found.update((part if first else f"\x1f{part}").encode("utf-8", "surrogatepass"))
        first = False
    return found.hexdigest()[:length]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A structural piece of a document in reading order; tables and lists are Markdown."""

    text: str
    kind: SpanKind = "paragraph"
    level: int = 0
    """Heading depth, 1 = top; 0 for everything that is not a heading."""
    page: int | None = None
    """1-based page (PDF), slide (PPTX) or sheet (XLSX); None where the format has none."""
    box: tuple[float, float, float, float] | None = None
    """x0, top, x1, bottom from the page's top left corner: PDF points, or pixels for image files."""
    line: int | None = None
    """1-based first line in the source file, for line-based formats."""
    confidence: float = 1.0
    """The reader's own certainty, 0 to 1; 1 for a digital text layer."""
    hand: bool = False
    """Written by hand, as far as text recognition can tell."""
    doubt: Literal["", "low-confidence", "unread-handwriting"] = ""
    """Why `prepare` leaves this span out until a person has looked at it; empty for text that may be used."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One source file: its text in reading order, with structure and positions."""

    id: str
    """First 16 hexadecimal digits of the sha256 of the file's bytes."""
    path: str
    """Path relative to the folder that was ingested, with forward slashes."""
    sha256: str
    media: str
    """Media type that the reader found, such as application/pdf."""
    reader: str
    title: str
    spans: tuple[Span, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of itself (author, created, subject…), and page warnings."""

    @property
    def text(self) -> str:
        return "\n\n".join(span.text for span in self.spans)


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A source that could not be used, and why; counted and shown, never lost."""

    path: str
    reason: str
    """A short, countable slug: encrypted, corrupt, empty, too-large, unknown-format, timeout, duplicate…"""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A structural chunk of a document: what the index holds and what questions are made from."""

    id: str
    document: str
    """Id of the document."""
    path: str
    title: str
    heading: tuple[str, ...]
    """Headings above the passage, outermost first."""
    text: str
    spans: tuple[int, int]
    """First span and one past the last span of the document that it covers."""
    page: int | None = None
    line: int | None = None

    @property
    def headed(self) -> str:
        """Title and headings, then the text: what is embedded and shown to a model."""
        head = " > ".join(dict.fromkeys(part for part in (self.title, *self.heading) if part))
        return f"{head}\n{self.text}" if head else self.text

    @property
    def citation(self) -> str:
        """`handbook.pdf, page 3`, the way a person would cite it."""
        if self.page is not None:
            return f"{self.path}, page {self.page}"
        return f"{self.path}, line {self.line}" if self.line is not None else self.path


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an example comes from: the lineage that `luthier trace` walks."""

    maker: Maker
    """human: the user's own pairs; document: found verbatim in a document; rule: made by a rule from document
    text; teacher: written by a model; pseudo: labelled by the model that is being trained."""
    step: str
    """The step that made it, such as `faq`, `section` or `synthesize`."""
    documents: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    where: str = ""
    """File and line (user's pairs) or citation (documents)."""
    evidence: str = ""
    """Verbatim quote of the source that supports the target, where one is known."""


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A labelled piece of an example's text, for the task `tag`."""

    start: int
    """First character, 0-based, in `Example.input`."""
    end: int
    """One past the last character."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row to learn from or to be tested on.

    Chat: `input` is the conversation up to and including the last user turn (assistant turns in it are learned too)
    and `target` the answer. Text: `input` is the text, `target` is None, and every token is learned. Labelled tasks:
    `input` is the text (classify, tag), the query (embed) or a caption (image, often empty), and the right answer is
    in `labels`, `spans`, or `target` with `negatives`.
    """

    id: str
    input: tuple[Message, ...] | str
    target: str | None
    origin: Origin
    split: Split = "train"
    weight: float = 1.0
    tags: tuple[str, ...] = ()
    """`unanswerable`: the right answer is a refusal; `grounded`: passages stand in the prompt; `replay`: general."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Attributes for audits, such as language or customer segment."""
    labels: tuple[str, ...] | None = None
    """Classes (classify, image): one, or any number where several may apply; None for a row without a label."""
    spans: tuple[Tag, ...] | None = None
    """Labelled pieces of the text (tag), by start; None for a row without labels, () for a text that holds none."""
    image: str = ""
    """Image file (image), relative to the project folder with forward slashes, or absolute where it lies outside."""
    negatives: tuple[str, ...] = ()
    """Texts that are not the answer to a query (embed), where the user's data names some; `target` is one that is."""

    @property
    def labelled(self) -> bool:
        """Whether the right answer is known."""
        return self.labels is not None or self.spans is not None or self.target is not None

    @property
    def question(self) -> str:
        """The last user turn (chat), or the text itself."""
        if isinstance(self.input, str):
            return self.input
        return next((m.content for m in reversed(self.input) if m.role == "user"), "")


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Something a step refused, with its reason; the data card counts it."""

    item: str
    """Id of the passage or example, or file and line."""
    step: str
    reason: str
    """A short, countable slug."""
    detail: str = ""
    text: str = ""
    """The first 300 characters, so that a person can judge."""


def encode(record: Any) -> str:
    """One line of JSON for any of the records above."""
    return _encode(record)


def _fields(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        raise TypeError(f"a {type(value).__name__} has no place in a record")
    return vars(value)


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_fields).encode  # `asdict` takes four times it


def decode_document(data: Mapping[str, Any]) -> Document:
    spans = tuple(
        Span(**{**span, "box": tuple(span["box"]) if span.get("box") else None}) for span in data["spans"]
    )
    return Document(**{**data, "spans": spans})


def decode_passage(data: Mapping[str, Any]) -> Passage:
    return Passage(**{**data, "heading": tuple(data["heading"]), "spans": tuple(data["spans"])})


def decode_example(data: Mapping[str, Any]) -> Example:
    raw = data["input"]
    origin = data["origin"]
    return Example(
        **{
            **data,
            "input": raw if isinstance(raw, str) else tuple(Message(**message) for message in raw),
            "origin": Origin(
                **{**origin, "documents": tuple(origin["documents"]), "passages": tuple(origin["passages"])}
            ),
            "tags": tuple(data["tags"]),
            "labels": None if data.get("labels") is None else tuple(data["labels"]),
            "spans": None if data.get("spans") is None else tuple(Tag(**tag) for tag in data["spans"]),
            "negatives": tuple(data.get("negatives", ())),
        }
    )


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records one a line; returns how many. The caller owns atomicity (a stage writes into a part folder)."""
    count = 0
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
        for record in records:
            file.write((json.dumps(record, ensure_ascii=False) if isinstance(record, dict) else encode(record)) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
