"""Scales and sliding windows of SESS, as integer positions.

Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import sqrt

from sess_ray.errors import SessError

SCALE_STEP = 64  # pixels between one scale and the next, along the side of a square window

Size = int | tuple[int, int]  # in pixels: the side of a square, or height and width


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
    window : int or (int, int)
        Side of a window, which is the model's input size; height and width if it is not square.
    scales : tuple of Scale
    fade : float
        Share of a window's sides, 0 to 0.5, over which its map fades out towards its inner borders, those that are not
        the image's.
    """

    height: int
    width: int
    window: Size
    scales: tuple[Scale, ...]
    fade: float = 0.0

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a window."""
        return sides(self.window)

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


def sides(size: Size) -> tuple[int, int]:
    """Return height and width.

    >>> sides(224), sides((256, 128))
    ((224, 224), (256, 128))
    """
    return size if isinstance(size, tuple) else (size, size)


def size_of(height: int, width: int) -> Size:
    """Return the side of a square, or height and width of what is none.

    >>> size_of(224, 224), size_of(256, 128)
    (224, (256, 128))
    """
    return height if height == width else (height, width)


def in_words(size: Size) -> str:
    """Return a size as people write it.

    >>> in_words(224), in_words((256, 128))
    ('224', '256 x 128')
    """
    return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"


def enlarged(size: Size, pixels: int) -> tuple[int, int]:
    """Return (height, width) of a size enlarged by the factor by which a square of its area becomes so much wider.

    >>> enlarged(224, 64), enlarged((256, 64), 64)
    ((288, 288), (384, 96))
    """
    height, width = sides(size)
    side = sqrt(height * width)  # of a square it is exact, and so is the rest
    return height + int(height * pixels / side), width + int(width * pixels / side)


def needed(window: Size, num_scales: int | None, max_map_side: int | None) -> tuple[int, int] | None:
    """Return how large an image has to be: its short side as the largest scale's, its long side as its map's.

    None if the map has the image's size, so that every pixel is needed. If windows are not square, the largest scale's
    short side depends on the image, and its largest possible value counts.

    >>> needed(224, 12, 1000), needed(224, None, 1000), needed(224, 12, None), needed((256, 64), 2, 1000)
    ((928, 1000), (224, 1000), None, (384, 1000))
    """
    if max_map_side is None:
        return None
    return max(enlarged(window, SCALE_STEP * ((num_scales or 1) - 1))), max_map_side


def starts(length: int, window: int, step: int) -> tuple[int, ...]:
    """Return the first pixels of the windows along one axis.

    0, step, 2 step, ...; the first window that reaches the end is moved back to end there, and is the last.

    >>> starts(500, 224, 224)
    (0, 224, 276)
    """
    regular = range(0, length - window, step)
    return (*regular, length - window)


def covering(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of an image made so large that it just covers a size: one side is equal, none shorter.

    >>> covering(300, 400, (224, 224)), covering(300, 400, (256, 128)), covering(300, 400, (100, 400))
    ((224, 298), (256, 341), (300, 400))
    """
    down, across = size
    if down * width >= across * height:
        return down, int(down * width / height)
    return int(across * height / width), across


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
def sess_plan(height: int, width: int, window: Size, num_scales: int, step: int | None = None) -> Plan:
    """Return the windows of SESS for an image.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    window : int or (int, int)
        Side of a window, or its height and width. Scale i, i = 0, 1, ..., is so large that it just covers a window
        enlarged by (s + 64 i) / s. For a square window s is its side: scales have a short side of s + 64 i pixels. For
        another window s = sqrt(height * width), the side of a square of the same area.
    num_scales : int
        Number of scales; the paper uses up to 12.
    step : int, optional
        Pixels between one window and the next, along both axes; the paper uses the window's side, or half of it. By
        default the window's height down, and its width across.

    Returns
    -------
    Plan

    Raises
    ------
    SessError
        If the image is empty.
    """
    _check(height, width)
    down, across = sides(window)
    scales = []
    for i in range(num_scales):
        h, w = covering(height, width, enlarged(window, SCALE_STEP * i))
        scales.append(Scale(h, w, starts(h, down, step or down), starts(w, across, step or across)))
    return Plan(height, width, window, tuple(scales))


@lru_cache(maxsize=1024)
def whole_plan(height: int, width: int, window: Size) -> Plan:
    """Return the plan without SESS: the whole image resized to one window."""
    _check(height, width)
    return Plan(height, width, window, (Scale(*sides(window), (0,), (0,)),))
