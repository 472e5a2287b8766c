"""The contract of text recognition: what an engine is, and the settings of a page that is read from its picture.

An engine turns one upright page image into lines of text with boxes and confidence. Everything around it is ours:
which pages are read (`luthier.ingest.pdf`), turning and cleaning the image (`_image`), reading order, tables and
headings (`_layout`), doubt and handwriting (`_doubt`), and what people corrected (`corrections`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import BeforeValidator, Field

from luthier.plugins import Seam
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np

OCR_ENGINES = Seam("text recognition engine", package="luthier.ingest.ocr")
VERSION = 2
"""Raised when what is made of the same picture by the same engine changes: pages are then read again."""

Box = tuple[float, float, float, float]
"""x0, top, x1, bottom."""


@dataclass(frozen=True)
class TextLine:
    """One line, or a piece of one, as an engine read it."""

    text: str
    box: Box | None
    """In pixels of the image that the engine was given; None from an engine that gives no places."""
    confidence: float
    """The engine's own certainty, 0 to 1."""


@dataclass(frozen=True)
class Reading:
    """All that an engine read on a page."""

    lines: tuple[TextLine, ...]
    engine: str
    """Kind of the engine that read it, for the page's notes."""
    notes: Mapping[str, Any] = field(default_factory=dict)


class EngineFailed(Exception):
    """Raised by an engine that could not read a page: the binary failed, the endpoint gave no answer."""


class Engine(Protocol):
    """One way to read text in pictures. A `Spec` registered at `OCR_ENGINES`; its fields are its options."""

    kind: ClassVar[str]
    cleans: ClassVar[bool]
    """Whether the image is freed of stains and specks first: Tesseract needs it, a neural detector does not."""

    def identity(self) -> str:
        """What the result depends on beside the spec: name and version of the library or binary; "" when missing."""
        ...

    def read(self, image: np.ndarray) -> Reading:
        """Lines of one upright page, grey or BGR, in any order. Raises EngineFailed."""
        ...

    def dump(self) -> dict[str, Any]: ...


def _named(value: Any) -> Any:
    return "off" if value is False else value  # what YAML 1.1 makes of `off`


AnyEngine = Annotated[Engine, OCR_ENGINES, BeforeValidator(_named)]


def _auto() -> Any:
    return OCR_ENGINES.get("auto")()


class Ocr(Spec):
    """How pages and images without usable text are read."""

    engine: AnyEngine = Field(default_factory=_auto)
    """Who reads: `auto` (what is installed), `rapidocr` (embedded), `tesseract` (the program), `endpoint` (a vision
    model that you name by url), `off`; or a class of your own."""
    handwriting: AnyEngine | None = None
    """Who reads pages with handwriting once more, such as {kind: endpoint, url: …, model: …}; empty for nobody."""
    min_confidence: float = Field(default=0.8, ge=0, le=1)
    """A line below this certainty is in doubt: it waits for a person in the queue `corrections`."""
    use_unsure: bool = False
    """Also use text in doubt (`low-confidence`, `unread-handwriting`) for training and search, before anyone saw it."""
    dpi: int = Field(default=200, ge=72, le=600)
    """Resolution at which PDF pages are drawn (dots per inch); higher reads small print better and takes longer."""
    max_megapixels: float = Field(default=100.0, gt=0)
    """Larger images are set aside unopened as too-many-pixels (millions of pixels, from the file's own header)."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Longest time for one page (seconds). A page that takes longer is flagged and costs that page only."""
    memory_mb: float = Field(default=4000.0, ge=500)
    """Most memory for reading one page (MiB); the embedded engine needs about 1,200."""
    engine_mb: float = Field(default=1500.0, ge=100)
    """Memory that is counted for each page read at the same time (MiB): fewer workers run where less is free."""

    @property
    def wanted(self) -> bool:
        """Whether pictures are to be read at all."""
        return self.engine.kind != "off"

    def identity(self) -> str:
        """The engines that would read, with versions; "" when there is none (its extra is not installed)."""
        own = self.engine.identity()
        more = self.handwriting.identity() if self.handwriting is not None else ""
        return f"{own}; handwriting: {more}" if own and more else own


@dataclass(frozen=True)
class Picture:
    """A page as an image."""

    image: np.ndarray
    """Grey or BGR, 8 bits."""
    per_unit: float = 1.0
    """Pixels of the image for one unit of a span's box: dpi / 72 for PDF points, 1 for pixels of an image file."""


class Pictured(Protocol):
    """What a reader has whose pages may be read from their pictures (see `Source.ocr`)."""

    def picture(self, source: Any, page: int, dpi: int) -> Picture:
        """The page (from 1). Raises `Refused` when it cannot be drawn."""
        ...


def mean_confidence(lines: Sequence[TextLine]) -> float:
    """Mean over characters; 0 for nothing."""
    chars = sum(len(line.text) for line in lines)
    return sum(line.confidence * len(line.text) for line in lines) / chars if chars else 0.0
