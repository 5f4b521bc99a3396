"""Pseudo-labels from maps: boxes, masks and label images, to train detection and segmentation without annotations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sess_ray.errors import SessError
from sess_ray.metrics.localization import largest_boxes, reaches

MOST_IN_A_BYTE = (
    254  # classes of a label image of 8 bits: 0 is the background, and 255 tells Pascal VOC's tools to ignore
)


@dataclass(frozen=True)
class Thresholds:
    """From which value of a map, taken from 0 to 1, a pixel belongs to a mask, and to the part that a box is around."""

    mask: float
    box: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise SessError(f"the threshold of a {name} is {value}: use a share of the map's maximum, 0 to 1")


def as_coco(saliency: np.ndarray, thresholds: Thresholds) -> dict[str, Any] | None:
    """Return what COCO says of an object: its box and its mask.

    Parameters
    ----------
    saliency : ndarray, (H, W)
    thresholds : Thresholds

    Returns
    -------
    dict or None
        bbox (x, y, width, height in pixels, around the largest part), segmentation (a compressed run-length code), area
        (of the mask, in pixels) and iscrowd; None for a constant map, which shows nothing.

    Raises
    ------
    SessError
        If pycocotools or scipy is missing.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise SessError("masks for COCO: needs pycocotools: install sess-ray[evaluate]") from error
    [box] = largest_boxes(saliency, [thresholds.box])
    if box is None:
        return None
    x0, y0, x1, y1 = box
    mask = reaches(saliency, thresholds.mask)
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(mask)),
        "segmentation": {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")},
        "iscrowd": 0,
    }


def label_image(maps: Sequence[tuple[int, np.ndarray]], threshold: float, classes: int) -> bytes:
    """Return which class each pixel of an image shows, as a PNG in Pascal VOC's layout.

    Parameters
    ----------
    maps : sequence of (int, ndarray (H, W))
        Number of the class, from 1, and its map; one or more. Where several reach the threshold the one of highest
        value counts, the first of equal ones.
    threshold : float
    classes : int
        That the dataset has.

    Returns
    -------
    bytes
        Up to 254 classes: 8 bits, with the palette of Pascal VOC. More: 16 bits, grey.
    """
    numbers = np.zeros(maps[0][1].shape, np.uint16)
    highest = np.full(numbers.shape, -1.0)
    for number, saliency in maps:
        here = reaches(saliency, threshold) & (saliency > highest)
        numbers[here], highest[here] = number, saliency[here]
    if classes > MOST_IN_A_BYTE:
        picture = Image.fromarray(numbers)
    else:
        picture = Image.fromarray(numbers.astype(np.uint8))
        picture.putpalette(voc_palette())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def voc_palette() -> bytes:
    """Return Pascal VOC's colours of 256 numbers: the bits of a number, dealt to red, green and blue in turn.

    Examples
    --------
    >>> [tuple(voc_palette()[3 * number : 3 * number + 3]) for number in (0, 1, 2, 15, 255)]
    [(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192)]
    """
    numbers = np.arange(256)
    colors = [sum((numbers >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    return np.stack(colors, 1).astype(np.uint8).tobytes()
