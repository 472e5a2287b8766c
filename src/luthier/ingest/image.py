"""Image files as documents: scans and photographs of pages, read by text recognition (docs/ocr.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from luthier.ingest.base import NO, READERS, SURE, Refused, Source
from luthier.ingest.ocr.base import Picture
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document

if TYPE_CHECKING:
    import numpy as np

_MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "TIFF": "image/tiff", "BMP": "image/bmp",
          "WEBP": "image/webp", "GIF": "image/gif"}
MIN_SIDE = 24
"""Pixels; smaller images are icons."""


@register(READERS, "image")
class ImageReader(Spec):
    """PNG, JPEG, TIFF (all its pages), BMP, WebP and GIF (the first picture)."""

    version: ClassVar[int] = 1

    def accepts(self, source: Source) -> int:
        head = source.head
        known = head.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"II+\x00"))
        riff = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
        bitmap = head.startswith(b"BM") and source.suffix in (".bmp", ".dib")
        return SURE if known or riff or bitmap else NO

    def read(self, source: Source) -> Iterator[Document]:
        if source.ocr != "on":
            raise Refused("no-text-layer", "an image: " + without(source.ocr))
        opened = _open(source)
        total = getattr(opened, "n_frames", 1) if opened.format == "TIFF" else 1
        wanted = min(total, source.max_pages or total)
        meta: dict[str, Any] = {"pages": total, "pages_skipped": total - wanted or None,
                                "ocr_wanted": [{"page": page, "why": "no-text"} for page in range(1, wanted + 1)]}
        yield source.document(reader="image", media=_MEDIA[opened.format or ""], spans=[], meta=meta)

    def picture(self, source: Source, page: int, dpi: int) -> Picture:
        """The image as it stands in the file, turned as its camera says; `dpi` has no meaning here."""
        from PIL import ImageOps

        opened = _open(source)
        try:
            if page > 1:
                opened.seek(page - 1)
                _refuse_huge(opened, source)
            shown = ImageOps.exif_transpose(opened)
            return Picture(_array(shown))
        except (OSError, ValueError, SyntaxError, EOFError) as error:  # whatever a decoder says of broken data
            said = " ".join(str(error).split())[:200]
            raise Refused("corrupt", f"page {page} of the image is damaged: {said}") from None


def without(ocr: str) -> str:
    """Why pictures are not read, and what to do."""
    if ocr == "missing":
        return "it needs text recognition, which is not installed: pip install 'luthier[ocr]'"
    return "it needs text recognition, which is switched off (ingest.ocr.engine)"


def _open(source: Source) -> Any:
    import warnings

    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit, which is told from the header before anything is decoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(source.path, formats=("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise Refused("corrupt", "damaged or cut off: the image cannot be opened") from None
    _refuse_huge(opened, source)
    if min(opened.size) < MIN_SIDE:
        raise Refused("empty", f"an image of {opened.width} × {opened.height} pixels is too small for text")
    return opened


def _refuse_huge(opened: Any, source: Source) -> None:
    millions = opened.width * opened.height / 1e6
    if millions > source.max_megapixels:
        raise Refused("too-many-pixels", f"{opened.width} × {opened.height} is {millions:.0f} million pixels; the "
                                         f"limit is {source.max_megapixels:g} (ingest.ocr.max_megapixels)")


def _array(image: Any) -> np.ndarray:
    """Grey or BGR; what shines through lies on white."""
    import numpy as np
    from PIL import Image

    if image.mode in ("1", "L", "I", "I;16", "F"):
        if image.mode in ("I", "I;16", "F"):
            values = np.asarray(image, np.float32)
            low, high = float(values.min()), float(values.max())
            return ((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
