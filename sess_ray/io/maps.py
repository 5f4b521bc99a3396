"""What a stored map is: a greyscale PNG of 256 levels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from sess_ray.errors import SessError
from sess_ray.windows import fitted

MAP_LEVELS = 255  # 8-bit PNG: a fifth of the size of 16 bits, and opens in every viewer


def quantize(saliency: np.ndarray) -> np.ndarray:
    """Return a map (H, W) in 0..1 as uint8."""
    return np.rint(np.clip(saliency, 0, 1) * MAP_LEVELS).astype(np.uint8)


def encode_map(levels: np.ndarray) -> bytes:
    """Return a quantised map (H, W) uint8 as a greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_map(png: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the map (H, W) float32 in 0..1 of a stored PNG.

    Parameters
    ----------
    png : bytes
    size : (int, int), optional
        Height and width of the image: a map that was made smaller (``max_map_side``) is enlarged to it, bilinearly with
        half-pixel centres.

    Raises
    ------
    SessError
        If it is the map of an image of another size.

    Examples
    --------
    >>> levels = np.array([[0, 51], [102, 255]], np.uint8)
    >>> decode_map(encode_map(levels)).tolist() == (levels / np.float32(255)).tolist()
    True
    """
    found = np.asarray(Image.open(io.BytesIO(png)), np.float32) / MAP_LEVELS
    if size is None or found.shape == size:
        return found
    longer = max(found.shape)
    # Of an image that was shrunk first, the map's shorter side is rounded twice, which is a pixel at most.
    if longer >= max(size) or np.abs(np.subtract(found.shape, fitted(*size, longer))).max() > 1:
        raise SessError(f"the map is {found.shape}, its row says {size}")
    return np.array(Image.fromarray(found).resize(size[::-1], Image.Resampling.BILINEAR))


def map_of(row: dict[str, Any]) -> np.ndarray | None:
    """Return the map of a row of maps/, (H, W) float32 in 0..1; None for one that is damaged or of another size."""
    try:
        return decode_map(row["saliency"]["bytes"], (row["height"], row["width"]))
    except Exception:  # Pillow's, of many kinds
        return None
