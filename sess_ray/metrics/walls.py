"""Walls: whether a map is steeper at the borders of its windows than beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sess_ray.errors import SessError
from sess_ray.windows import Plan

SIDE = 3  # pixels from a line to the pixels that are compared across it
BESIDE = 12  # pixels from a border to the lines with which it is compared: beyond the reach of the smoothing
EDGE = 16  # pixels that a border needs from the image's edge, so that all of the above is inside

Border = tuple[int, int, int]  # column left of which it lies, first row, row after the last; or with rows and columns


def walls(saliency: np.ndarray, plan: Plan, kept: np.ndarray) -> float:
    """Return how much steeper a map is at the borders of its kept windows than 12 pixels beside them.

    The jump at a line is the mean, along the line, of |third pixel on one side - third pixel on the other|. The walls
    are the mean jump at the borders, divided by the mean jump at parallel lines of the same length 12 pixels to either
    side. A border counts once for each kept window that has it; borders at most 16 pixels from the
    image's edge are left out. Windows are rectangles in pixels of the map, their borders rounded to whole pixels.

    Parameters
    ----------
    saliency : ndarray, (H, W)
        The map, of the plan's size; NaN counts as 0. Linear changes of its values do not change the result.
    plan : Plan
        All windows.
    kept : ndarray, (P,) bool
        The windows of `plan.positions()` from which the map is made: `Explanation.patches["kept"]`.

    Returns
    -------
    float
        About 1 if no borders show; inf if the map is flat beside its borders but not across them; NaN if there is
        nothing to compare: no border inside the image, or a map that is flat at all lines.

    Raises
    ------
    SessError
        If the map or `kept` does not fit the plan.

    Examples
    --------
    >>> from sess_ray.windows import sess_plan
    >>> plan = sess_plan(300, 300, 100, 3, 100)
    >>> ramp = np.linspace(0, 1, 300)[None].repeat(300, 0)
    >>> round(walls(ramp, plan, np.ones(plan.num_patches, bool)), 6)
    1.0
    >>> ramp[:, 132:] += 1  # from the border of a window on
    >>> walls(ramp, plan, np.ones(plan.num_patches, bool)) > 5
    True
    """
    if saliency.shape != (plan.height, plan.width) or kept.shape != (plan.num_patches,):
        raise SessError(
            f"a map {saliency.shape} and {kept.shape} windows do not fit a plan of {plan.num_patches} windows "
            f"in {(plan.height, plan.width)}: give the map and the marks of one explanation"
        )
    values = np.nan_to_num(np.asarray(saliency, np.float64))
    at: list[float] = []
    beside: list[float] = []
    for vertical, lines in zip((values, values.T), borders(plan, kept), strict=True):
        for line, first, stop in lines:
            at.append(_jump(vertical, line, first, stop))
            beside += [_jump(vertical, line + offset, first, stop) for offset in (-BESIDE, BESIDE)]
    if not at:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(at) / np.mean(beside))


def borders(plan: Plan, kept: np.ndarray) -> tuple[list[Border], list[Border]]:
    """Return the vertical and the horizontal borders of kept windows that lie far enough inside the image.

    Returns
    -------
    vertical, horizontal : list of (int, int, int)
        The column (row) that begins right of (below) the border, and its first row (column) and that after its last.
    """
    vertical, horizontal = [], []
    for y0, x0, y1, x1 in _rectangles(plan, kept):
        vertical += [(x, y0, y1) for x in (x0, x1) if EDGE < x < plan.width - EDGE]
        horizontal += [(y, x0, x1) for y in (y0, y1) if EDGE < y < plan.height - EDGE]
    return vertical, horizontal


def _rectangles(plan: Plan, kept: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Yield top, left, bottom and right of kept windows in pixels of the map."""
    height, width = plan.sides
    for keep, (number, y, x) in zip(kept, plan.positions(), strict=True):
        if keep:
            scale = plan.scales[number]
            down, across = plan.height / scale.height, plan.width / scale.width
            ends = y * down, x * across, (y + height) * down, (x + width) * across
            top, left, bottom, right = map(round, ends)
            yield top, left, bottom, right


def _jump(values: np.ndarray, line: int, first: int, stop: int) -> float:
    """Return the mean difference across a vertical line, along rows first to stop."""
    one, other = values[first:stop, line - SIDE], values[first:stop, line + SIDE - 1]
    return float(np.abs(other - one).mean())
