"""Values in annotations, whatever the format: names, numbers, boxes and outlines, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sess_ray.io.annotations import Annotation, Annotations, Box, Object, Segments, plain_path
from sess_ray.io.regions import extent

# How a format writes a box. Pascal VOC counts pixels from 1. ImageNet took over VOC's XML but counts from 0: in images
# of 500 pixels its boxes go from 0 to 499, in the XML as in the csv. Both include the last pixel.
CONVENTIONS: dict[str, Callable[[float, float, float, float], Box]] = {
    "edges": lambda x0, y0, x1, y1: (x0, y0, x1, y1),
    "coco": lambda x, y, width, height: (x, y, x + width, y + height),
    "voc": lambda x0, y0, x1, y1: (x0 - 1, y0 - 1, x1, y1),
    "imagenet": lambda x0, y0, x1, y1: (x0, y0, x1 + 1, y1 + 1),
}
SHORTEST_POLYGON = 6  # three points; pycocotools takes four numbers for a box
FARTHEST_POINT = 1e6  # pixels; pycocotools walks along every edge, in integers


def image_of(found: Annotations, image_id: str, size: Mapping[str, Any]) -> Annotation:
    """Return the annotation of an image, a new one where it has none."""
    image_id = plain_path(image_id)
    image = found.by_id.setdefault(image_id, Annotation(image_id))
    image.width = image.width or _side(size.get("width"))
    image.height = image.height or _side(size.get("height"))
    return image


def add_object(
    found: Annotations,
    image: Annotation,
    label: object,
    box: object,
    convention: str,
    segments: object = None,
    *,
    difficult: bool = False,
    crowd: bool = False,
    unlabelled: str = "",
) -> None:
    """Add an object to an image, or say in the problems why not; without a box it has that of its segments.

    `unlabelled` says why it has no label, where that is known.
    """
    name = " ".join(str(label).split()) if text_of(label) else None
    outline, complete = _outline(segments)
    numbers: Sequence[float] | None = _numbers(box)
    if box in (None, [], "") and outline:
        numbers, convention = extent(outline), "edges"
    if name is None or numbers is None or len(numbers) != 4:
        place = str(box)[:60]
        what = unlabelled or f"an object without a label: {place}"
        fault = what if name is None else f"an object without a box of 4 numbers: {name!r}, {place}"
        found.problems.append((image.image_id, fault))
        return
    if not complete:
        found.problems.append((image.image_id, f"an object with segments that are neither polygons nor RLE: {name!r}"))
    own = CONVENTIONS[convention](*numbers)
    if own[2] < own[0] or own[3] < own[1]:
        found.problems.append((image.image_id, f"an object with a box that ends before it begins: {name!r}, {box}"))
        return
    image.objects.append(Object(name, own, outline, difficult, crowd))


def is_marked(value: object) -> bool:
    """Say whether a mark such as "difficult" is set: 1, true or yes, as a number or as text."""
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def _outline(segments: object) -> tuple[Segments | None, bool]:
    """Return the segments that are polygons or a run-length code, and whether these are all."""
    if isinstance(segments, list) and segments and all(isinstance(value, int | float) for value in segments):
        segments = [segments]  # one polygon, its list left out
    if isinstance(segments, dict):
        if segments.get("counts") is None:  # Parquet has all fields in all rows
            return None, not any(value is not None for value in segments.values())
        size = _numbers(segments.get("size"))
        complete = size is not None and len(size) == 2 and isinstance(segments["counts"], list | str | bytes)
        return (segments if complete else None), complete
    if segments is None or not isinstance(segments, list):
        return None, segments is None
    polygons = [list(points) for points in map(_numbers, segments) if points is not None and _is_polygon(points)]
    return polygons or None, len(polygons) == len(segments)


def _is_polygon(points: Sequence[float]) -> bool:
    return len(points) >= SHORTEST_POLYGON and len(points) % 2 == 0 and max(map(abs, points)) <= FARTHEST_POINT


def _numbers(values: object) -> Sequence[float] | None:
    """Return finite numbers, also out of text; None where something else is among them."""
    if not isinstance(values, list | tuple):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _side(value: object) -> int | None:
    numbers = _numbers([value])
    return int(numbers[0]) if numbers and numbers[0] >= 1 else None


def text_of(value: object) -> str | None:
    """Return a value as text without blanks around it; None where nothing is left."""
    return None if value is None or str(value).strip() == "" else str(value).strip()


def first_of(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """Return the first of the known names that is among the columns."""
    present = set(columns)
    return next((name for name in known if name in present), None)


def listed(names: Iterable[object]) -> str:
    """Return names for a message: not too many, none too long."""
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") if shown else "nothing in it"
