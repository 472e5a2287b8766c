"""From an image file to a row of bytes to a tensor.

A row holds the decoded image at the network's size, np.uint8 [height, width, 3]; normalisation is done for a whole
batch. Decoded rows are kept in a cache, because decoding and resizing cost more than a small network's forward pass.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from luthier.adapt.backbones.base import Backbone, Processor, Row
from luthier.adapt.backbones.image_cache import Records
from luthier.errors import DataError
from luthier.store import Cache, write_json
from luthier.types import Example, digest

if TYPE_CHECKING:
    from PIL import Image

FILE = "image_processor.json"
Resize = Literal["crop", "exact"]
Resample = Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"]
VERSION = 1  # of decoding: part of where decoded images are kept
CHUNK = 256  # images that are written to the cache at once


@dataclass
class ImageProcessor(Processor):
    """Decodes, turns upright, resizes and normalises. Equal for training, evaluation and serving."""

    size: int
    """Side of the square that the network sees, in pixels. Smaller images are enlarged to it."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per channel, of values from 0 to 1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per channel, of values from 0 to 1."""
    scale: float = 1 / 255
    """What bytes are multiplied by before mean and std."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Channel order that the network was trained with."""
    resize: Resize = "crop"
    """`crop`: the shorter side is brought to `size` / `crop` and the centre is kept; `exact`: the whole image is
    squeezed to a square of `size` / `crop` and the centre is kept."""
    crop: float = 1.0
    """Share of the resized image's side that the centre crop keeps, 0 to 1."""
    resample: Resample = "bicubic"
    root: Path | None = None
    """Folder that relative image paths start from (the project folder); not saved."""
    cache: Cache | None = None
    """Where decoded rows are kept; not saved."""

    def read(self, example: Example) -> Row:
        """The image as np.uint8 [size, size, 3]; DataError names the file where it cannot be read."""
        return Row(id=example.id, data=self.decode(self._path(example)), size=1)

    def read_many(self, examples: Sequence[Example]) -> list[Row]:
        """`read` for many; those that were never decoded before are written to the cache together."""
        if self.cache is None:
            return [self.read(example) for example in examples]
        records = self._records(self.cache)
        rows, fresh = [], {}
        for example in examples:
            path = self._path(example)
            key = _key(path)
            pixels = records.get(key)
            if pixels is None:
                pixels = fresh[key] = fresh[key] if key in fresh else self.decode(path)
            rows.append(Row(id=example.id, data=pixels, size=1))
            if len(fresh) >= CHUNK:
                records.put(fresh)
                fresh = {}
        if fresh:
            records.put(fresh)
        return rows

    def _records(self, cache: Cache) -> Records:
        setting = digest(f"image {VERSION}", str(self.size), self.resize, str(self.crop), self.resample)
        return Records(cache.folder / setting, (self.size, self.size, 3))

    def _path(self, example: Example) -> Path:
        if not example.image:
            raise DataError(f"example {example.id} ({example.origin.where or 'no source'}) names no image file")
        return (self.root or Path()) / example.image

    def decode(self, path: Path) -> np.ndarray:
        """One file as np.uint8 [size, size, 3]."""
        return self.decode_bytes(self._bytes(path), name=f"image {path}")

    @staticmethod
    def _bytes(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"image {path} cannot be read: {error.strerror or error}") from None

    def decode_bytes(self, data: bytes, *, name: str = "the image") -> np.ndarray:
        """An image file's bytes (as uploaded) as np.uint8 [size, size, 3]; DataError says what is wrong with it."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(data)) as opened:
                if opened.format == "JPEG":  # let the decoder halve the image as often as that costs no detail
                    opened.draft("RGB", (2 * self.size, 2 * self.size))
                return self.fit(upright(opened))
        except UnidentifiedImageError:
            raise DataError(f"{name} is not an image that can be read; use JPEG, PNG, WebP, BMP, GIF or TIFF") from None
        except Image.DecompressionBombError:
            raise DataError(f"{name} has too many pixels to be decoded safely; make it smaller") from None
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow's decoders raise on damaged files
            raise DataError(f"{name} is damaged and cannot be decoded: {error}") from None

    def fit(self, image: Image.Image) -> np.ndarray:
        """An RGB image brought to the network's square, np.uint8 [size, size, 3]."""
        from PIL import Image

        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
                   "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST,
                   "box": Image.Resampling.BOX, "hamming": Image.Resampling.HAMMING}
        width, height = image.size
        short = min(width, height)
        kept_w, kept_h = (width, height) if self.resize == "exact" else (short, short)
        kept_w, kept_h = kept_w * self.crop, kept_h * self.crop
        # resizing the kept region at once equals resizing everything and cropping
        box = ((width - kept_w) / 2, (height - kept_h) / 2, (width + kept_w) / 2, (height + kept_h) / 2)
        small = image if (width, height) == (self.size, self.size) and box == (0, 0, width, height) \
            else image.resize((self.size, self.size), filters[self.resample], box=box, reducing_gap=3.0)
        return np.array(small, dtype=np.uint8)

    def array(self, pixels: np.ndarray) -> np.ndarray:
        """An array that was never a file (uint8 [h, w], [h, w, 1] or [h, w, 3]) as np.uint8 [size, size, 3]."""
        from PIL import Image

        flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
        if flat.dtype != np.uint8 or flat.ndim not in (2, 3) or (flat.ndim == 3 and flat.shape[-1] != 3):
            raise DataError(f"an image array must be uint8 [h, w] or [h, w, 3]; found {pixels.dtype} {pixels.shape}")
        return self.fit(Image.fromarray(flat).convert("RGB"))

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """`pixels` float32 [rows, 3, size, size], normalised, channels last in memory."""
        stacked = torch.from_numpy(np.stack([row.data for row in rows]))
        if self.order == "bgr":
            stacked = stacked.flip(-1)
        factor = self.scale / torch.tensor(self.std)
        shift = torch.tensor(self.mean) / torch.tensor(self.std)
        return {"pixels": (stacked.float() * factor - shift).permute(0, 3, 1, 2)}  # NHWC in memory

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {name: value for name, value in vars(self).items() if name not in ("root", "cache")})

    @classmethod
    def restore(cls, folder: Path) -> ImageProcessor:
        """An equal processor from what `save` wrote, without root and cache."""
        facts = json.loads((folder / FILE).read_text("utf-8"))
        return cls(**{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])})


class ImageBackbone(Backbone):
    """A network that reads images: its features are [rows, width]."""

    reads = "image"
    processor: ImageProcessor  # type: ignore[reportIncompatibleVariableOverride]


def _key(path: Path) -> str:
    """A file as it is now: its bytes need not be read to know that they were decoded before."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror or error}") from None
    return digest(os.path.abspath(path), str(stat.st_size), str(stat.st_mtime_ns), length=32)


def upright(image: Image.Image) -> Image.Image:
    """As a person sees it, in RGB: turned as EXIF says, transparency laid on white, 16-bit grey brought to 8."""
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(turned, dtype=np.float64)
        top = 65535.0 if turned.mode != "F" else max(float(values.max()), 1.0)
        turned = Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return turned.convert("RGB")
