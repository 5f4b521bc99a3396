"""Scales and sliding windows of SESS, as integer positions.

Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from sess_ray.errors import SessError

SCALE_STEP = 64  # pixels of the short side between one scale and the next


@dataclass(frozen=True)
class Scale:
    """One resized version of an image and the windows that slide over it.

    Attributes
    ----------
    height, width : int
        Size of the resized image in pixels.
    ys, xs : tuple of int
        Top rows and left columns of the windows; every pair (y, x) is a window.
    """

    height: int
    width: int
    ys: tuple[int, ...]
    xs: tuple[int, ...]

    @property
    def num_windows(self) -> int:
        return len(self.ys) * len(self.xs)


@dataclass(frozen=True)
class Plan:
    """Every window of one image: scales in ascending order, windows row by row.

    Attributes
    ----------
    height, width : int
        Size of the map in pixels: that of the image, unless `max_map_side` limits it.
    window : int
        Side of a window, which is the model's input size.
    scales : tuple of Scale
    fade : float
        Share of a window's side, 0 to 0.5, over which its map fades out towards its inner borders, those that are not
        the image's.
    """

    height: int
    width: int
    window: int
    scales: tuple[Scale, ...]
    fade: float = 0.0

    @property
    def num_patches(self) -> int:
        return sum(scale.num_windows for scale in self.scales)

    def slices(self) -> list[slice]:
        """Return the slice of all windows that belongs to each scale."""
        ends = [0, *accumulate(scale.num_windows for scale in self.scales)]
        return [slice(*both) for both in pairwise(ends)]

    def positions(self) -> list[tuple[int, int, int]]:
        """Return (scale index, y, x) of every window, in the order of the plan."""
        return [(i, y, x) for i, scale in enumerate(self.scales) for y in scale.ys for x in scale.xs]


def largest_scale(window: int, num_scales: int) -> int:
    """Return the short side, in pixels, of the last of so many scales."""
    return window + SCALE_STEP * (num_scales - 1)


def needed(window: int, num_scales: int | None, max_map_side: int | None) -> tuple[int, int] | None:
    """Return how large an image has to be: its short side as the largest scale's, its long side as its map's.

    None if the map has the image's size, so that every pixel is needed.

    >>> needed(224, 12, 1000), needed(224, None, 1000), needed(224, 12, None)
    ((928, 1000), (224, 1000), None)
    """
    if max_map_side is None:
        return None
    return largest_scale(window, num_scales or 1), max_map_side


def starts(length: int, window: int, step: int) -> tuple[int, ...]:
    """Return the first pixels of the windows along one axis.

    0, step, 2 step, ...; the first window that reaches the end is moved back to end there, and is the last.

    >>> starts(500, 224, 224)
    (0, 224, 276)
    """
    regular = range(0, length - window, step)
    return (*regular, length - window)


def scaled_size(height: int, width: int, short: int) -> tuple[int, int]:
    """Return (height, width) with the short side made `short` and the long side int(short * long / short side)."""
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def fitted(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """Return (height, width) of an image, reduced to at most `max_side` pixels on its long side; None for no limit.

    >>> fitted(3000, 4000, 1024), fitted(300, 400, 1024)
    ((768, 1024), (300, 400))
    """
    longer = max(height, width)
    if max_side is None or longer <= max_side:
        return height, width
    return max(1, round(height * max_side / longer)), max(1, round(width * max_side / longer))


def _check(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise SessError(f"an image of {width} x {height} pixels has nothing to explain")


@lru_cache(maxsize=1024)
def sess_plan(height: int, width: int, window: int, num_scales: int, step: int) -> Plan:
    """Return the windows of SESS for an image.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    window : int
        Side of a window. Scale i, i = 0, 1, ..., has a short side of window + 64 i pixels.
    num_scales : int
        Number of scales; the paper uses up to 12.
    step : int
        Pixels between one window and the next; the paper uses the window's side, or half of it.

    Returns
    -------
    Plan

    Raises
    ------
    SessError
        If the image is empty.
    """
    _check(height, width)
    scales = []
    for i in range(num_scales):
        h, w = scaled_size(height, width, largest_scale(window, i + 1))
        scales.append(Scale(h, w, starts(h, window, step), starts(w, window, step)))
    return Plan(height, width, window, tuple(scales))


@lru_cache(maxsize=1024)
def whole_plan(height: int, width: int, window: int) -> Plan:
    """Return the plan without SESS: the whole image resized to one window."""
    _check(height, width)
    return Plan(height, width, window, (Scale(window, window, (0,), (0,)),))
