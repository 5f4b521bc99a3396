"""Which pixels objects cover, and the boxes of outlines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sess_ray.boxes import boxes_region
from sess_ray.errors import SessError, unknown
from sess_ray.io.annotations import Box, Kind, Object, Segments


def region(objects: Iterable[Object], height: int, width: int, kind: Kind) -> np.ndarray:
    """Return which pixels objects cover.

    Parameters
    ----------
    objects : iterable of Object
    height, width : int
        Size of the image in pixels.
    kind : {"boxes", "segments"}
        A box covers the pixels whose centres lie in it. Segments are drawn by pycocotools; an object without them
        counts by its box.

    Returns
    -------
    ndarray, (height, width) bool

    Raises
    ------
    SessError
        If a segment is no valid code or one of an image of another size, or pycocotools is missing.
    """
    if kind not in ("boxes", "segments"):
        raise unknown("kind of region", kind, ("boxes", "segments"))
    covered = np.zeros((height, width), bool)
    for entry in objects:
        if kind == "segments" and entry.segments:
            covered |= _segment_mask(entry, height, width)
        else:
            covered |= boxes_region(np.array(entry.box), height, width)
    return covered


def _segment_mask(entry: Object, height: int, width: int) -> np.ndarray:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise SessError("segments: needs pycocotools: install sess-ray[evaluate]") from error
    segments = entry.segments
    try:
        if isinstance(segments, dict):
            code = _run_lengths(segments, height, width)
            if isinstance(code["counts"], list):
                code = mask.frPyObjects(code, height, width)
        else:
            code = mask.merge(mask.frPyObjects(segments, height, width))
        return mask.decode(code).astype(bool)
    except SessError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise SessError(f"a segment of {entry.label!r} is no polygon or run-length code: {reason}") from error


def _run_lengths(segments: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Check what pycocotools trusts: codes of the wrong length write outside of the mask."""
    size = [int(side) for side in segments["size"]]
    if size != [height, width]:
        raise SessError(f"segments are of an image of {size[1]} x {size[0]} pixels, this one has {width} x {height}")
    counts = segments["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    lengths = [int(count) for count in counts] if isinstance(counts, list) else list(_unpacked(counts))
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise SessError(f"segments: run lengths sum to {sum(lengths)}, not to {height} x {width}")
    return {"size": size, "counts": lengths if isinstance(counts, list) else counts}


def _unpacked(counts: bytes) -> Iterator[int]:
    """Yield the run lengths of a compressed code: 5 bits a character, signed, from the fourth on as differences."""
    lengths: list[int] = []
    value = shift = 0
    if any(not 48 <= character < 112 for character in counts) or (counts and (counts[-1] - 48) & 0x20):
        raise SessError(f"segments: {counts[:20]!r} is no compressed run-length code")
    for character in counts:
        digit = character - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        yield value
        value = shift = 0


def extent(segments: Segments) -> Box | None:
    """Return the box around polygons or what a run-length code covers; None where that is nothing, or no valid code."""
    if isinstance(segments, list):
        xs, ys = ([value for points in segments for value in points[first::2]] for first in (0, 1))
        return (min(xs), min(ys), max(xs), max(ys)) if xs else None
    try:
        height, width = (int(side) for side in segments["size"])
        code = _run_lengths(segments, height, width)["counts"]
    except Exception:  # of many kinds, as what may stand there
        return None
    x0, y0, x1, y1 = width, height, 0, 0
    start = 0
    for number, length in enumerate(code if isinstance(code, list) else _unpacked(code)):
        if number % 2 and length:  # columns one after the other, from the top down
            (first, top), (last, bottom) = divmod(start, height), divmod(start + length - 1, height)
            top, bottom = (top, bottom) if first == last else (0, height - 1)
            x0, y0, x1, y1 = min(x0, first), min(y0, top), max(x1, last + 1), max(y1, bottom + 1)
        start += length
    return (x0, y0, x1, y1) if x1 else None
