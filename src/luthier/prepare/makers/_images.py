"""Images of the user's: checked once each (remembered by content), and where they lie."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.errors import DataError, need
from luthier.models.sources import file_hash
from luthier.prepare.makers._formats import SPLITS
from luthier.prepare.makers._rows import Row
from luthier.store import Cache
from luthier.types import digest

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_VERSION = 1
_SMALL = 200_000


@dataclass(frozen=True)
class Checked:
    """What is known of an image file."""

    reason: str = ""
    """Why it cannot be used: missing-file, not-an-image, corrupt-image, too-many-pixels; empty for a good one."""
    detail: str = ""
    width: int = 0
    height: int = 0


def check_all(files: Sequence[Path], max_megapixels: float, cache: Cache) -> Iterator[Checked]:
    """One answer a file, in order. A file is decoded in full; of large ones the answer is remembered by their bytes."""
    need("PIL", extra="images")
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:  # decoding leaves the interpreter free
        yield from pool.map(lambda file: _check(file, max_megapixels, cache), files, chunksize=1)


def _check(file: Path, max_megapixels: float, cache: Cache) -> Checked:
    try:
        if file.stat().st_size < _SMALL:  # as quickly decoded as looked up
            return look(file, max_megapixels)
        key = digest("image", str(_VERSION), file_hash(file), repr(max_megapixels), length=40)
    except FileNotFoundError:
        return Checked("missing-file", "there is no such file")
    except OSError as error:
        return Checked("unreadable", error.strerror or str(error))
    known = cache.get(key)
    if known is not None:
        return Checked(**json.loads(known))
    found = look(file, max_megapixels)
    cache.put(key, json.dumps(vars(found)).encode())
    return found


def look(file: Path, max_megapixels: float) -> Checked:
    """Open and decode a file, in full but at a small size where its format allows."""
    import warnings

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning on large images; the limit here decides
            with Image.open(file) as image:
                width, height = image.size
                if width * height > max_megapixels * 1e6:
                    return Checked("too-many-pixels", f"{width} x {height} pixels; the limit is {max_megapixels:g} "
                                   "million (max_megapixels)", width, height)
                image.draft("RGB", (64, 64))
                image.load()
        return Checked(width=width, height=height)
    except UnidentifiedImageError:
        return Checked("not-an-image", "no image format that Pillow knows")
    except Image.DecompressionBombError as error:
        return Checked("too-many-pixels", str(error))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:  # what Pillow's decoders raise
        return Checked("corrupt-image", str(error).splitlines()[0] if str(error) else type(error).__name__)


def image_path(file: Path, root: Path) -> str:
    """As `Example.image` holds it: relative to the project folder, absolute where it lies outside."""
    file, root = Path(os.path.abspath(file)), Path(os.path.abspath(root))
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def keep_bytes(data: bytes, cache: Cache) -> Path:
    """Write an image that stood inside a table into the store, once; its name is the hash of its bytes."""
    import hashlib

    key = hashlib.sha256(data).hexdigest()
    file = cache.folder / key[:2] / key
    if not file.is_file():
        cache.put(key, data)
    return file


def images_cache(cache: Cache) -> Cache:
    """Where images lie that the user's data holds as numbers or bytes: `cache/images` of the same store."""
    return Cache(cache.folder.parent / "images")


def read_npz(path: Path, shown: str, cache: Cache) -> Iterator[Row]:
    """Rows of an .npz archive of images: arrays such as x_train and y_train, train_images and train_labels, x and y.

    Images are [n, height, width] or [n, height, width, 1, 3 or 4], whole numbers of 0 to 255 or fractions of 0 to 1.
    They are written as PNG files. Raises DataError for arrays that are neither.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{shown} is no readable NumPy archive of numbers: {error}") from None
    found = pairs(arrays)
    if not found:
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"{shown} holds no images with labels such as x_train and y_train; it holds: "
                        f"{held or 'nothing'}")
    for name, labels_name, split in found:
        labels = arrays[labels_name]
        pixels = _pixels(arrays[name], f"{shown}, {name}")
        flat = labels.reshape(len(labels), -1)
        if len(flat) != len(pixels) or flat.shape[1] != 1:
            raise DataError(f"{shown}: {name} holds {len(pixels)} images but its labels have the shape {labels.shape}; "
                            "one label an image is needed")
        for number, image in enumerate(pixels):
            label = flat[number, 0].item()
            yield Row(f"{shown}, {name} row {number}", {"image": str(_png(image, cache)), "label": label}, split)


def pairs(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """(array of images, array of their labels, split or "") of the arrays of an archive, by their names."""
    sides: dict[tuple[str, str], str] = {}
    for name in names:
        parts = re.split(r"[^a-z]+", name.lower())
        split = next((SPLITS[part] for part in parts if part in SPLITS), "")
        kind = "images" if {"x", "images", "image", "data", "imgs"} & set(parts) else (
            "labels" if {"y", "labels", "label", "targets", "target"} & set(parts) else "")
        if kind:
            sides[split, kind] = name
    return [(name, sides[split, "labels"], split) for (split, kind), name in sides.items()
            if kind == "images" and (split, "labels") in sides]


def _pixels(images: np.ndarray, name: str) -> np.ndarray:
    import numpy as np

    if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] not in (1, 3, 4):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (3, 4)):
        raise DataError(f"{name}: images are [n, height, width] or [n, height, width, channels], found {images.shape}")
    if images.dtype == np.uint8 or not images.size:
        return images
    low, high = float(images.min()), float(images.max())
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(images * 255).astype(np.uint8)
    if low >= 0 and 1 < high <= 255:
        return np.rint(images).astype(np.uint8)
    raise DataError(f"{name}: pixel values run from {low:g} to {high:g}; 0 to 255, or fractions of 0 to 1, are needed")


def _png(image: np.ndarray, cache: Cache) -> Path:
    import io

    from PIL import Image

    key = digest("png", str(image.shape), image.tobytes().hex(), length=64)
    file = cache.folder / key[:2] / key
    if not file.is_file():
        written = io.BytesIO()
        Image.fromarray(image).save(written, "PNG", compress_level=1)
        cache.put(key, written.getvalue())
    return file
