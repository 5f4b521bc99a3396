"""The same pixels in other layouts of memory."""

from __future__ import annotations

import numpy as np
from PIL import Image

LAYOUTS = {
    "channels turned, as of OpenCV": lambda pixels: np.ascontiguousarray(pixels[..., ::-1])[..., ::-1],
    "upside down": lambda pixels: np.ascontiguousarray(pixels[::-1])[::-1],
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1])[:, ::-1],
    "columns first": np.asfortranarray,
    "channels first": lambda pixels: np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every other line": lambda pixels: np.repeat(pixels, 2, axis=0)[::2],
    "three of four channels": lambda pixels: np.concatenate([pixels, pixels[..., :1]], axis=2)[..., :3],
    "not to be written to": lambda pixels: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
    "PIL": Image.fromarray,
}
