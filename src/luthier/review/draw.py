"""Draw one page of a PDF or an image file. Imported by the worker process, so it imports little."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from luthier.errors import need


def draw(job: tuple[str, int, int]) -> tuple[bytes, float, float] | str:
    """(PNG, width, height) of one page of a PDF or an image file; a sentence where it cannot be shown. Runs in a
    worker."""
    path, number, longest = job
    with Path(path).open("rb") as file:
        head = file.read(1024)
    return _draw_pdf(path, number, longest) if b"%PDF-" in head else _draw_image(path, number, longest)


def _draw_pdf(path: str, number: int, longest: int) -> tuple[bytes, float, float] | str:
    opened = need("pypdfium2", extra="ingest").PdfDocument(path)
    try:
        if not 1 <= number <= len(opened):
            return f"{Path(path).name} has {len(opened)} pages and no page {number}; it changed since it was read"
        page = opened[number - 1]
        width, height = page.get_size()
        picture = page.render(scale=min(3.0, longest / max(width, height, 1))).to_pil()
        return _png(picture), width, height
    finally:
        opened.close()


def _draw_image(path: str, number: int, longest: int) -> tuple[bytes, float, float] | str:
    image = need("PIL.Image", extra="images")
    ops = need("PIL.ImageOps", extra="images")
    try:
        with image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            if not 1 <= number <= frames:
                return f"{Path(path).name} has {frames} pictures and no number {number}; it changed since it was read"
            if frames > 1:
                opened.seek(number - 1)
            picture = ops.exif_transpose(opened).convert("RGB")
    except image.UnidentifiedImageError:
        return f"{Path(path).name} is neither a PDF nor an image, so there is no page to show"
    width, height = picture.size
    picture.thumbnail((longest, longest))
    return _png(picture), float(width), float(height)


def _png(picture: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=3)
    return out.getvalue()
