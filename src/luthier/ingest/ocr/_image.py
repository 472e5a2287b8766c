"""A page image made upright, straight and, for engines that need it, clean. Boxes find their way back.

Deskewing maximises the sharpness of the row profile (Postl 1986); background division and median filtering are the
usual steps before Tesseract (its own documentation, "Improving the quality of the output").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.ingest.ocr.base import Box

if TYPE_CHECKING:
    import numpy as np

MAX_SKEW = 8.0
"""Degrees. Pages that are more askew are photographs of something else."""
MIN_SKEW = 0.2
"""Degrees below which a page is left alone: every turn blurs."""
SIDEWAYS = 4.0
"""How much sharper the columns' profile must be than the rows' before a page surely lies on its side. Measured: upright
letters, receipts and print have .04 to 2.2."""
_WORK_SIDE = 1000


@dataclass(frozen=True)
class Upright:
    """A page as an engine reads it, and how it was turned."""

    image: np.ndarray
    quarter_turns: int
    """Turns of 90 degrees clockwise that were made."""
    skew: float
    """Degrees that were then taken out, clockwise."""
    size: tuple[int, int]
    """Width and height of the original (pixels)."""

    def original(self, box: Box) -> Box:
        """The box around the same place in the original image (pixels)."""
        import numpy as np

        x0, top, x1, bottom = box
        points = np.array([[x0, top], [x1, top], [x1, bottom], [x0, bottom]], float)
        high, wide = self.image.shape[:2]
        if self.skew:
            points = (points - [wide / 2, high / 2]) @ _rotation(-self.skew).T + [wide / 2, high / 2]
        width, height = self.size
        x, y = points[:, 0], points[:, 1]
        for turns, back in ((1, (y, height - x)), (2, (width - x, height - y)), (3, (width - y, x))):
            if self.quarter_turns == turns:
                x, y = back
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def upright(image: np.ndarray, quarter_turns: int | None = None) -> Upright:
    """The page with its lines level: on its side or askew no more. Whether it stands on its head is for the reader of
    it to find out (`quarter_turns` says then what to do); a profile cannot tell."""
    import cv2
    import numpy as np

    size = (image.shape[1], image.shape[0])
    ink = _ink(image)
    side = np.ascontiguousarray(np.rot90(ink, -1))
    (angle, sharp), (angle_side, sharp_side) = _rough_skew(ink), _rough_skew(side)
    if quarter_turns is None:
        quarter_turns = 1 if sharp_side > SIDEWAYS * sharp else 0
    if quarter_turns:
        image = np.ascontiguousarray(np.rot90(image, -quarter_turns))
        ink = np.ascontiguousarray(np.rot90(ink, -quarter_turns))
    skew = _skew(ink, angle_side if quarter_turns % 2 else angle)
    if skew:
        high, wide = image.shape[:2]
        matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), skew, 1.0)
        paper = tuple(float(v) for v in np.atleast_1d(np.median(image.reshape(-1, *image.shape[2:]), axis=0)))
        image = cv2.warpAffine(image, matrix, (wide, high), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT,
                               borderValue=paper)
    return Upright(image, quarter_turns, skew, size)


def grey(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image


def cleaned(image: np.ndarray) -> np.ndarray:
    """Grey, without uneven light, stains and specks; a clean page comes back nearly as it was."""
    import cv2
    import numpy as np

    page = grey(image)
    if noise(page) > 4:  # specks go before the background is looked for
        page = cv2.medianBlur(page, 3)
    small = cv2.resize(page, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    wide = max(15, round(min(small.shape) / 16) | 1)
    background = cv2.medianBlur(cv2.dilate(small, np.ones((5, 5), np.uint8)), min(wide, 99))
    background = cv2.resize(background, (page.shape[1], page.shape[0]), interpolation=cv2.INTER_LINEAR)
    page = cv2.divide(page, np.maximum(background, 1), scale=255)
    if noise(page) > 4:
        page = cv2.fastNlMeansDenoising(page, None, h=20, templateWindowSize=5, searchWindowSize=15)
    return page


def noise(page: np.ndarray) -> float:
    """Strength of fine noise: mean absolute second difference where no edges are, in grey levels (Immerkaer 1996)."""
    import cv2
    import numpy as np

    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)
    rough = np.abs(cv2.filter2D(page.astype(np.float32), -1, kernel))
    edges = cv2.dilate((np.abs(cv2.Laplacian(cv2.medianBlur(page, 5), cv2.CV_32F)) > 12).astype(np.uint8),
                       np.ones((5, 5), np.uint8)) > 0
    calm = rough[~edges]
    return float(calm.mean() * (np.pi / 2) ** 0.5 / 6) if calm.size > 1000 else 0.0


def _ink(image: np.ndarray) -> np.ndarray:
    """Dark marks on lighter paper as 0 and 1, at most 1000 pixels on a side."""
    import cv2
    import numpy as np

    page = grey(image)
    scale = min(1.0, _WORK_SIDE / max(page.shape))
    if scale < 1:
        page = cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    window = max(15, (min(page.shape) // 20) | 1)
    marks = cv2.adaptiveThreshold(page, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, window, 15)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    wide, high = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]
    # Rules, frames and photographs have profiles of their own; specks have none worth hearing.
    limit = 0.12 * max(page.shape)
    keep = (np.maximum(wide, high) <= limit) & (stats[:, cv2.CC_STAT_AREA] >= 4)
    keep[0] = False
    return keep[labels].astype(np.uint8) if count > 1 else marks


def _sharpness(ink: np.ndarray) -> float:
    """How clearly the rows part into lines and gaps."""
    import numpy as np

    rows = ink.sum(axis=1, dtype=np.float64)
    return float(np.square(np.diff(rows)).sum() / max(rows.sum(), 1))


def _rough_skew(ink: np.ndarray) -> tuple[float, float]:
    """Degrees (to half a degree) that level the lines when turned counter-clockwise, and their sharpness then."""
    import cv2
    import numpy as np

    small = cv2.resize(ink * 255, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    tried = [(float(angle), _turned_sharpness(small, angle)) for angle in np.arange(-MAX_SKEW, MAX_SKEW + 0.01, 0.5)]
    return max(tried, key=lambda found: found[1])


def _skew(ink: np.ndarray, near: float) -> float:
    """Degrees, to a tenth, that level the lines; 0 where nothing is gained."""
    import numpy as np

    if not ink.any():
        return 0.0
    marks = ink * 255
    tried = [(float(angle), _turned_sharpness(marks, angle)) for angle in np.arange(near - 0.4, near + 0.41, 0.1)]
    best, sharp = max(tried, key=lambda found: found[1])
    return round(best, 1) if abs(best) >= MIN_SKEW and sharp > 1.02 * _turned_sharpness(marks, 0.0) else 0.0


def _turned_sharpness(marks: np.ndarray, angle: float) -> float:
    import cv2

    high, wide = marks.shape
    matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), float(angle), 1.0)
    return _sharpness(cv2.warpAffine(marks, matrix, (wide, high), flags=cv2.INTER_LINEAR))


def _rotation(degrees: float) -> np.ndarray:
    """Matrix that turns image points counter-clockwise (y points down)."""
    import numpy as np

    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
