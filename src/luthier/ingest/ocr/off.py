"""No text recognition: scans are set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from luthier.ingest.ocr.base import OCR_ENGINES, EngineFailed, Reading
from luthier.plugins import register
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np


@register(OCR_ENGINES, "off")
class Off(Spec):
    """Nobody reads pictures: images and scans are set aside, with a reason."""

    cleans: ClassVar[bool] = False

    def identity(self) -> str:
        return ""

    def read(self, image: np.ndarray) -> Reading:
        raise EngineFailed("text recognition is off")
