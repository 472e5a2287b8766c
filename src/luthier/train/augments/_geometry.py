"""Affine changes of an image; what comes into view from outside is its mirror image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def warp(data: np.ndarray, *, degrees: float = 0.0, right: float = 0.0, down: float = 0.0,
         zoom: float = 1.0) -> np.ndarray:
    """Turn counter-clockwise about the centre, enlarge by `zoom`, then move by pixels. uint8 [h, w, 3] → the same."""
    import numpy as np
    from PIL import Image

    height, width = data.shape[:2]
    edge = max(height, width)
    padded = np.pad(data, ((edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    x, y = width / 2, height / 2  # Pillow asks where in the source each target pixel lies
    a, b, d, e = cos, -sin, sin, cos
    matrix = (a, b, edge + x - a * (x + right) - b * (y + down), d, e, edge + y - d * (x + right) - e * (y + down))
    image = Image.fromarray(padded).transform((width, height), Image.Transform.AFFINE, matrix,
                                              resample=Image.Resampling.BILINEAR)
    return np.array(image)
