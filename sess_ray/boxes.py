"""Boxes [x0, y0, x1, y1] in pixels, the last two exclusive, and the pixels that they cover."""

from __future__ import annotations

import numpy as np


def boxes_region(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which pixels have their centre in a box.

    Parameters
    ----------
    boxes : ndarray, (n, 4) float
        x0, y0, x1, y1 in pixels; a box of no extent covers nothing.
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    ndarray, (height, width) bool

    Examples
    --------
    >>> boxes_region([[0.5, 0, 2.6, 1], [3, -2, 9, 9]], 2, 4).astype(int)
    array([[1, 1, 1, 1],
           [0, 0, 0, 1]])
    """
    covered = np.zeros((height, width), bool)
    # The first centre x + 0.5 at or after an edge is that of the pixel ceil(edge - 0.5).
    for x0, y0, x1, y1 in np.ceil(clipped(boxes, height, width) - 0.5).astype(int):
        covered[y0:y1, x0:x1] = True
    return covered


def clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return boxes (n, 4) as float64, without what lies outside the image."""
    return np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])
