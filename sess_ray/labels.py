"""Pseudo-labels from maps: objects as masks and the boxes around them, in the formats of COCO and Pascal VOC.

The mask, (H, W) bool, is the only source of an object's place: every box is the tight box of a mask that is written
beside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from sess_ray.errors import SessError

MOST_IN_A_BYTE = 254  # in 8 bits: 0 is the background, and 255 means "ignore" to Pascal VOC's tools
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 exclusive


@dataclass(frozen=True, eq=False)
class Labelled:
    """An object of an image.

    Attributes
    ----------
    number : int
        The number of its class, from 1.
    mask : ndarray, (H, W) bool
        Its pixels, at least one.
    saliency : ndarray, (H, W)
        The map from which it is made. Where objects overlap but a pixel can belong to only one, the highest value
        decides.
    score : float
        The class's probability.
    """

    number: int
    mask: np.ndarray
    saliency: np.ndarray
    score: float


def tight_box(mask: np.ndarray) -> Box:
    """Return the box around the pixels of a mask, (H, W) bool, which has at least one.

    Examples
    --------
    >>> tight_box(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (1, 1, 3, 2)
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def parts(mask: np.ndarray, min_part: float) -> list[np.ndarray]:
    """Return the connected parts of a mask, the largest first.

    Parameters
    ----------
    mask : ndarray, (H, W) bool
    min_part : float
        Leave out parts with fewer pixels than this share of the largest one's, 0 to 1.

    Returns
    -------
    list of ndarray, (H, W) bool
        Neighbours, also diagonal ones, belong to one part. Parts with equally many pixels are in row-major order.

    Raises
    ------
    SessError
        If scipy is missing.
    """
    try:
        from scipy import ndimage  # type: ignore[import-untyped]
    except ImportError as error:
        raise SessError("parts of masks: needs scipy: install sess-ray[evaluate]") from error
    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    return [numbers == place + 1 for place in order if sizes[place] >= min_part * sizes[order[0]]]


def objects_of(mask: np.ndarray, *, instances: bool, min_part: float) -> list[np.ndarray]:
    """Return the masks of the objects in a class's mask: one, or with `instances` one for each part.

    Parameters
    ----------
    mask : ndarray, (H, W) bool
    instances : bool
    min_part : float
        As in `parts`; parts that are left out belong to no object.

    Returns
    -------
    list of ndarray, (H, W) bool
        Empty for a mask without pixels.
    """
    if not mask.any():
        return []
    if not instances and not min_part:
        return [mask]
    found = parts(mask, min_part)
    return found if instances else [np.logical_or.reduce(found)]


def as_coco(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's fields for an object's place.

    Parameters
    ----------
    mask : ndarray, (H, W) bool
        With at least one pixel.

    Returns
    -------
    dict
        segmentation (a compressed run-length code); bbox (x, y, width, height in pixels) and area (in pixels) of that
        segmentation; iscrowd.

    Raises
    ------
    SessError
        If pycocotools is missing.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise SessError("masks for COCO: needs pycocotools: install sess-ray[evaluate]") from error
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    x0, y0, x1, y1 = tight_box(mask)
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(mask)),
        "segmentation": {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")},
        "iscrowd": 0,
    }


def shown(objects: Sequence[Labelled]) -> tuple[np.ndarray, list[Labelled]]:
    """Return which object each pixel of an image shows, and the objects that are visible.

    Parameters
    ----------
    objects : sequence of Labelled
        One or more. If several contain a pixel, it belongs to the one with the highest value (the first, if equal).

    Returns
    -------
    places : ndarray, (H, W) int
        0 for the background, else the number of an object, from 1, in `visible`.
    visible : list of Labelled
        In their order, without those that other objects cover completely.
    """
    places = np.zeros(objects[0].mask.shape, np.int32)
    highest = np.full(places.shape, -np.inf)
    for place, entry in enumerate(objects, 1):
        here = entry.mask & (entry.saliency > highest)
        places[here], highest[here] = place, entry.saliency[here]
    left = np.unique(places[places > 0])
    renumbered = np.zeros(len(objects) + 1, np.int32)
    renumbered[left] = np.arange(1, len(left) + 1)
    return renumbered[places], [objects[place - 1] for place in left]


def label_image(numbers: np.ndarray, most: int) -> bytes:
    """Return a label image as PNG, in Pascal VOC's format.

    Parameters
    ----------
    numbers : ndarray, (H, W) int
        0 for the background, else the number of a class or of an object.
    most : int
        The largest number in any of the dataset's images of this kind.

    Returns
    -------
    bytes
        8 bits with the palette of Pascal VOC if `most` is at most 254, else 16 bits grey.
    """
    if most > MOST_IN_A_BYTE:
        picture = Image.fromarray(numbers.astype(np.uint16))
    else:
        picture = Image.fromarray(numbers.astype(np.uint8))
        picture.putpalette(voc_palette())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def as_voc(file_name: str, places: np.ndarray, names: Sequence[str]) -> bytes:
    """Return the XML in which Pascal VOC says what is in an image.

    Parameters
    ----------
    file_name : str
        Name of the image.
    places : ndarray, (H, W) int
        As `shown` returns them.
    names : sequence of str
        Names of the objects' classes, in the order of their numbers in `places`.

    Returns
    -------
    bytes
        The boxes are those of the objects' pixels in `places`, counted from 1, with the last pixel inside.
    """
    root = ET.Element("annotation")
    height, width = places.shape
    size = {"width": width, "height": height, "depth": 3}
    _write(root, {"filename": file_name, "size": size, "segmented": 1})
    for place, name in enumerate(names, 1):
        x0, y0, x1, y1 = tight_box(places == place)
        box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
        _write(root, {"object": {"name": name, "difficult": 0, "bndbox": box}})
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8") + b"\n"


def _write(parent: ET.Element, content: dict[str, Any]) -> None:
    for tag, value in content.items():
        child = ET.SubElement(parent, tag)
        if isinstance(value, dict):
            _write(child, value)
        else:
            child.text = _NOT_IN_XML.sub("?", str(value))


def voc_palette() -> bytes:
    """Return Pascal VOC's colours for 256 numbers: a number's bits go to red, green and blue in turn.

    Examples
    --------
    >>> [tuple(voc_palette()[3 * number : 3 * number + 3]) for number in (0, 1, 2, 15, 255)]
    [(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192)]
    """
    numbers = np.arange(256)
    colors = [sum((numbers >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    return np.stack(colors, 1).astype(np.uint8).tobytes()
