"""A picture of an image beside its map."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_SIDE = 640
OPACITY = 0.6

# Corners of the "inferno" colour map (Smith & van der Walt): perceptually uniform, readable by the colour-blind.
_INFERNO = ("000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4")
CORNERS = np.array([[int(color[i : i + 2], 16) for i in (0, 2, 4)] for color in _INFERNO])  # evenly spaced, in 0..255


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    at = np.linspace(0, len(CORNERS) - 1, 256)
    return np.stack([np.interp(at, range(len(CORNERS)), CORNERS[:, i]) for i in range(3)], 1)


def colours(saliency: np.ndarray) -> Image.Image:
    """Return a map (H, W) in 0..1 in colours."""
    return Image.fromarray(_palette()[np.rint(saliency * 255).astype(np.uint8)].astype(np.uint8))


def blend(image: np.ndarray, saliency: np.ndarray, opacity: float = OPACITY) -> Image.Image:
    """Return an image (H, W, 3) uint8 under the colours of its map (H, W) in 0..1; an opacity of 0 hides the map."""
    return Image.blend(Image.fromarray(image), colours(saliency), opacity)


def windows_in_words(kept: int, total: int) -> str:
    """Return from how many windows a map is made, in words.

    >>> windows_in_words(1, 1), windows_in_words(157, 157), windows_in_words(32, 157)
    ('one window', 'all 157 windows', '32 of 157 windows')
    """
    if total == 1:
        return "one window"
    return f"all {total} windows" if kept == total else f"{kept} of {total} windows"


def overlay(image: np.ndarray, saliency: np.ndarray, caption: str) -> bytes:
    """Draw an image, and beside it the image under its map.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, 3) uint8
    saliency : numpy.ndarray, (H, W) float32 in 0..1
    caption : str
        A line below.

    Returns
    -------
    bytes
        A PNG of at most 640 pixels a side for each picture.
    """
    picture = Image.fromarray(image)
    blended = blend(image, saliency)
    scale = min(1.0, MAX_SIDE / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture, blended = picture.resize(size), blended.resize(size)
    margin, line = 8, 22
    canvas = Image.new("RGB", (max(2 * size[0] + 3 * margin, 280), size[1] + 2 * margin + line), "white")
    canvas.paste(picture, (margin, margin))
    canvas.paste(blended, (2 * margin + size[0], margin))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(canvas).text((margin, size[1] + margin + 4), caption, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()
