"""Is a line written by hand? Five measures of its ink, no dictionary and no engine.

Handwriting joins letters into wide pieces, strays from the baseline, varies in height, and is thin for its size.
Logistic regression (C=.1, classes balanced) on 707 lines of 20 pages: 70 handwritten and 73 typed lines of eight
letters of 1905, 564 printed ones. Leaving one page out at a time: precision .96, recall 1.00 (docs/ocr.md). Pen on
ruled forms and block capitals are not in that sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier.ingest.ocr._image import grey
from luthier.ingest.ocr.base import Box

if TYPE_CHECKING:
    import numpy as np

_WEIGHTS = (2.7, 5.2, -9.97, 3.32, -10.83)
_BIAS = 2.83
_HEIGHT = 64
"""Pixels to which a line is scaled before it is measured."""


def handwritten(image: np.ndarray, boxes: Sequence[Box | None]) -> list[bool]:
    """For each line of a page, whether it is handwritten. A line too short to tell, or without a box, goes with the
    majority of the page."""
    import numpy as np

    page = grey(image)
    found = [features(page, box) if box is not None else None for box in boxes]
    judged = [None if one is None else bool(np.dot(_WEIGHTS, one) + _BIAS > 0) for one in found]
    told = [one for one in judged if one is not None]
    if not told:  # an engine that gives no places: rows of ink stand for its lines
        rows = [one for box in ink_rows(page) if (one := features(page, box)) is not None]
        told = [bool(np.dot(_WEIGHTS, one) + _BIAS > 0) for one in rows]
    majority = sum(told) > len(told) / 2 if told else False
    return [majority if one is None else one for one in judged]


def features(page: np.ndarray, box: Box) -> tuple[float, ...] | None:
    """Width of wide pieces, spread of their lower edges, width of strokes (all in line heights; strokes times 10),
    spread of heights, and how much of its box a piece fills; None for fewer than three pieces."""
    import cv2
    import numpy as np

    x0, top, x1, bottom = (max(round(value), 0) for value in box)
    crop = page[top:bottom, x0:x1]
    if crop.shape[0] < 8 or crop.shape[1] < 8:
        return None
    scale = _HEIGHT / crop.shape[0]
    crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    _, ink = cv2.threshold(crop, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    pieces = stats[1:]
    pieces = pieces[(pieces[:, cv2.CC_STAT_AREA] > 12) & (pieces[:, cv2.CC_STAT_HEIGHT] >= 10)]
    if len(pieces) < 3:
        return None
    wide, high = pieces[:, cv2.CC_STAT_WIDTH], pieces[:, cv2.CC_STAT_HEIGHT]
    distance = cv2.distanceTransform(ink, cv2.DIST_L2, 3)
    ridge = distance[(ink > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3))) - 1e-6)]
    lower = pieces[:, cv2.CC_STAT_TOP] + high
    return (float(np.percentile(wide, 90) / _HEIGHT), float(lower.std() / _HEIGHT), float(ridge.mean() / _HEIGHT * 10),
            float(high.std() / high.mean()), float(np.median(pieces[:, cv2.CC_STAT_AREA] / (wide * high))))


def ink_rows(page: np.ndarray) -> list[Box]:
    """Bands of a level page that hold ink, from the row profile: a stand-in for lines where an engine gives none."""
    import cv2
    import numpy as np

    _, ink = cv2.threshold(page, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    profile = np.convolve(ink.sum(axis=1), np.ones(5) / 5, mode="same")
    busy = profile > max(0.15 * float(profile.max()), 1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], busy.astype(int), [0]])))
    found = []
    for top, bottom in zip(edges[::2], edges[1::2]):
        pad = round(0.4 * (bottom - top))
        if bottom - top >= 8:
            found.append((0.0, float(max(top - pad, 0)), float(page.shape[1]), float(min(bottom + pad, len(page)))))
    return found
