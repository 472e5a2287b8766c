"""Which engine reads a page when the user names none: the cheap one where it is sure, the strong one elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.ingest.ocr._doubt import word_share
from luthier.ingest.ocr.base import OCR_ENGINES, EngineFailed, Reading, mean_confidence
from luthier.ingest.ocr.rapidocr import RapidOcr
from luthier.ingest.ocr.tesseract import Tesseract
from luthier.plugins import register
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np


@register(OCR_ENGINES, "auto")
class Auto(Spec):
    """Tesseract where it is installed and sure of a page, else the embedded RapidOCR; never a network."""

    tesseract: Tesseract = Tesseract()
    """The cheaper engine, asked first where its program is installed."""
    sure: float = Field(default=0.88, ge=0, le=1)
    """Tesseract's page counts when its mean confidence and its share of word-like words reach this; else RapidOCR
    reads the page too, and the likelier reading is taken."""

    cleans: ClassVar[bool] = False

    def identity(self) -> str:
        return " + ".join(name for name in (self.tesseract.identity(), RapidOcr().identity()) if name)

    def read(self, image: np.ndarray) -> Reading:
        from luthier.ingest.ocr._image import cleaned

        first = None
        if self.tesseract.identity():
            try:
                first = self.tesseract.read(cleaned(image))
            except EngineFailed:
                if not RapidOcr().identity():
                    raise
            if first is not None and first.lines and score(first) >= self.sure:
                return first
        if not RapidOcr().identity():
            if first is None:
                raise EngineFailed("no text recognition is installed; install it with: pip install 'luthier[ocr]'")
            return first
        second = RapidOcr().read(image)
        return second if first is None or score(second) >= score(first) else first


def score(reading: Reading) -> float:
    """How likely a reading is: the lower of its mean confidence and its share of words that look like words."""
    return min(mean_confidence(reading.lines), word_share(" ".join(line.text for line in reading.lines)))
