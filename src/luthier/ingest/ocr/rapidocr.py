"""RapidOCR: PP-OCR models in onnxruntime, in the wheel, offline (https://github.com/RapidAI/RapidOCR).

Its line classifier is left out: it turns lines upside down that are upright, which costs more than it saves (measured,
shared facts §7). All three switches are given with every call, because the library keeps those of the last one.
"""

from __future__ import annotations

import functools
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar

from luthier.errors import need
from luthier.ingest.ocr.base import OCR_ENGINES, EngineFailed, Reading, TextLine
from luthier.plugins import register
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np


@register(OCR_ENGINES, "rapidocr")
class RapidOcr(Spec):
    """The embedded engine: no network, no program to install; Latin letters and Chinese; about 4 to 12 CPU seconds and
    1.1 GB for a page."""

    cleans: ClassVar[bool] = False

    def identity(self) -> str:
        try:
            found = version("rapidocr")
        except PackageNotFoundError:
            return ""
        parts = all(importlib.util.find_spec(name) for name in ("cv2", "onnxruntime"))
        return f"rapidocr {found}" if parts else ""

    def read(self, image: np.ndarray) -> Reading:
        engine = _engine()
        try:
            found = engine(image, use_det=True, use_cls=False, use_rec=True, text_score=0.0)
        except Exception as error:  # the library raises its own kinds and those of onnxruntime and OpenCV
            raise EngineFailed(f"rapidocr: {type(error).__name__}: {error}") from None
        lines = []
        for quad, text, score in zip(*(value if value is not None else () for value in
                                       (getattr(found, "boxes", None), getattr(found, "txts", None),
                                        getattr(found, "scores", None)))):
            if text.strip():
                box = (float(quad[:, 0].min()), float(quad[:, 1].min()), float(quad[:, 0].max()),
                       float(quad[:, 1].max()))
                lines.append(TextLine(" ".join(text.split()), box, float(score)))
        return Reading(tuple(lines), self.kind)


@functools.cache
def _engine() -> Any:
    """One engine for each worker process: loading takes a second. One thread: the pages run side by side."""
    made = need("rapidocr", extra="ocr").RapidOCR
    one_thread = {f"EngineConfig.onnxruntime.{name}_op_num_threads": 1 for name in ("intra", "inter")}
    return made(params={"Global.log_level": "critical", **one_thread})
