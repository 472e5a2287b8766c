"""About how many pages of a folder will be read from their pictures: a glance at the files, before anything is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from luthier.executors import Executor, Failure, Local
from luthier.ingest.base import Ingest
from luthier.store import Artifact
from luthier.types import read_jsonl

PAGES = 24
"""Pages of a PDF that are looked at, spread over the file."""
FILES = 200
"""Files that are looked at; the others are taken for alike."""
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")


def pages_to_read(sources: Sequence[Path], spec: Ingest, last: Artifact | None = None, *,
                  executor: Executor | None = None) -> int:
    """Pages without a text layer in new PDF files, and new images; `last` is the ingest whose files are no news.

    0 where pictures are not read. Pages with a broken text layer, which ingest finds while it reads, do not count.
    """
    from luthier.ingest._files import collect

    if not spec.ocr.wanted or not spec.ocr.identity():
        return 0
    known = {row["sha256"] for row in read_jsonl(last.path / "documents.jsonl")} if last is not None else set()
    new = [file for file in collect(sources, spec).files
           if file.sha256 not in known and file.name.lower().endswith((".pdf", *IMAGES))]
    if not new:
        return 0
    looked = new[:: -(-len(new) // FILES)]
    executor = executor or Local(min(Local(spec.workers).workers, len(looked)))
    look = functools.partial(glance, spec.max_pages)
    found = [result for _, result in executor.map(look, [file.path for file in looked], timeout_s=spec.timeout_s,
                                                  memory_mb=spec.memory_mb) if not isinstance(result, Failure)]
    return round(sum(found) * len(new) / len(looked))


def glance(most: int | None, path: str) -> float:
    """Pages of one file that have no text but a picture's; in a worker process, for the file may be hostile."""
    if path.lower().endswith(IMAGES):
        return _images(most, path)
    import pypdfium2

    from luthier.ingest._pdf_guards import refuse_page_bomb
    from luthier.ingest.base import Refused

    try:
        opened = pypdfium2.PdfDocument(path)
        total = len(opened)
        refuse_page_bomb(Path(path), total)
    except (pypdfium2.PdfiumError, Refused):
        return 0.0  # it will be set aside
    total = min(total, most or total)
    asked = range(0, total, -(-total // PAGES)) if total else range(0)
    without = sum(not opened[at].get_textpage().get_text_bounded().strip() for at in asked)
    return without * total / max(len(asked), 1)


def _images(most: int | None, path: str) -> float:
    from PIL import Image, UnidentifiedImageError

    from luthier.ingest.image import MIN_SIDE

    Image.MAX_IMAGE_PIXELS = None  # only the header is read
    try:
        with Image.open(path) as opened:
            if min(opened.size) < MIN_SIDE:
                return 0.0
            frames = getattr(opened, "n_frames", 1) if opened.format == "TIFF" else 1
            return float(min(frames, most or frames))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return 0.0  # it will be set aside
