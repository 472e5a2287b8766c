"""Image files of examples: their bytes, and safe, unique names for copies of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from luthier.errors import DataError
from luthier.prepare.formats.base import Content
from luthier.types import Example

_KINDS = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"),
          (b"MM\0*", ".tif"), (b"P6", ".ppm"), (b"P5", ".pgm"))


def source(example: Example, content: Content) -> Path:
    """The image file. Raises DataError where it has gone since `prepare` ran."""
    file = content.root / example.image
    if not file.is_file():
        raise DataError(f"the image {example.image} of {example.origin.where or example.id} is no longer there; "
                        "put it back, or run luthier prepare again")
    return file


def name_of(example: Example, file: Path) -> str:
    """The file's own name and the example's id, with the ending that its bytes ask for."""
    with file.open("rb") as opened:
        head = opened.read(12)
    suffix = next((ending for mark, ending in _KINDS if head.startswith(mark)), "")
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        suffix = ".webp"
    stem = re.sub(r"[^\w-]+", "_", file.stem)[:60].strip("_")
    stem = "" if re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{60}", stem) else f"{stem}_"  # Luthier's own name by content
    return f"{stem}{example.id}{suffix or file.suffix.lower()}"


def copy(example: Example, content: Content, folder: Path) -> str:
    """Copy the image into a folder, which is made; returns its name."""
    file = source(example, content)
    name = name_of(example, file)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / name)
    return name
