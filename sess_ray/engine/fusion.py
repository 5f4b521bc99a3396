"""From one map per patch to one map per image: min-max, pre-filter, calibrate, weigh, average, smooth.

Nothing here is ever as large as (patches x H x W). A window covers a rectangle of the image, and bilinear resampling is
separable, so what a row of windows adds to the image is one matrix product per axis: resampling (window to image)
times up-sampling (map to window). The image itself is made in bands of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from sess_ray.blur import convolved, gaussian_kernel
from sess_ray.engine.placing import placement
from sess_ray.engine.scales import axis_matrix, over, scale_by_scale
from sess_ray.errors import unknown
from sess_ray.resampling import Rows, taps, upsampling
from sess_ray.transfer import upload
from sess_ray.windows import Plan, Size, sides

BAND_PIXELS = 1 << 21
SMOOTHING_SIZE = 11
SMOOTHING_SIGMA = 5.0

Fusion = Literal["seamless", "reference"]


def keep(scores: Tensor, ratio: float, scored: Tensor | None = None) -> Tensor:
    """Pre-filter: mark the patches to keep.

    Patches are sorted by score, ascending and stable, and those from int(P * ratio) on are kept: all if the ratio is 0,
    and always at least one.

    Parameters
    ----------
    scores : Tensor, (P,)
    ratio : float
        Share of the patches to drop, 0 <= ratio <= 1.
    scored : Tensor, (P,) bool, optional
        Patches that have a score; the others are dropped first, and never kept.

    Returns
    -------
    Tensor, (P,) bool
    """
    count = num_kept(len(scores), ratio)
    if scored is not None:
        scores = scores.where(scored, -torch.inf)
        count = min(count, int(scored.sum()))
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, best(scores, count), value=True)


def best(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the highest scores, (..., count) int64, ascending; among equal scores the last."""
    return scores.argsort(dim=-1, stable=True)[..., scores.shape[-1] - count :].sort(-1).values


def num_kept(count: int, ratio: float) -> int:
    """Return how many of `count` patches the pre-filter keeps."""
    return max(1, count - int(count * ratio))


@lru_cache(maxsize=64)
def _extremes(cells: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return rows of the up-sampling matrix, (n, cells), among whose results are the extremes of any map.

    Between two cells a bilinear map is linear along each axis, so among the pixels there it is largest (and smallest)
    at the first or the last one.
    """
    host = torch.device("cpu")
    rows = torch.arange(window)
    if cells < window:
        first = taps(cells, window, host).first
        change = (first[1:] != first[:-1]).nonzero()[:, 0]
        rows = torch.cat([torch.tensor([0, window - 1]), change, change + 1]).unique()
    return upload(upsampling(cells, window, host)[rows].to(dtype), device)


def min_max(maps: Tensor, window: Size) -> Tensor:
    """Scale maps so that each ranges from 0 to 1 when it is up-sampled to the window.

    Parameters
    ----------
    maps : Tensor, (N, u, v)
    window : int or (int, int)
        Side of the window, or its height and width; the minimum and maximum are taken over its pixels.

    Returns
    -------
    Tensor, (N, u, v)
        Constant maps, and maps that are not finite, become zero.
    """
    n, u, v = maps.shape
    values = maps.flatten(1)
    if (u, v) != sides(window):
        axes = zip((u, v), sides(window), strict=True)
        rows, columns = (_extremes(cells, side, maps.dtype, maps.device) for cells, side in axes)
        values = (rows @ maps @ columns.T).flatten(1)
    low, high = values.aminmax(dim=1)
    spread = high - low
    # A map is constant when its spread is what rounding leaves of equal values.
    floor = torch.finfo(maps.dtype).eps * 8 * high.abs().maximum(low.abs())
    dead = ((spread > floor) & (spread < torch.inf)).logical_not_()
    scaled = (maps - low.view(n, 1, 1)) / spread.masked_fill(dead, 1).view(n, 1, 1)
    return scaled.masked_fill_(dead.view(n, 1, 1), 0)


def _seamless(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Return the sum of the weighted maps, divided by the coverage of all windows of the plan, kept or dropped."""
    if maps.device.type == "cpu":
        return _each(scale_by_scale, plan, maps, kept)
    at = placement(plan, *maps.shape[2:], maps.dtype, maps.device)
    return lambda top, bottom: over(at.summed(maps, kept, top, bottom), at.coverage(top, bottom))


def _each(one: Callable[[Plan, Tensor, Tensor], Rows], plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Fuse the maps of each target separately."""
    found = [one(plan, *both) for both in zip(maps, kept, strict=True)]
    return lambda top, bottom: torch.stack([rows(top, bottom) for rows in found])


def _reference(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Return the mean of the positive weighted values at each pixel, like the public release, seams included."""
    return _each(_positive_mean, plan, maps, kept)


def _positive_mean(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    axes = zip(maps.shape[1:], plan.sides, strict=True)
    up_rows, up_columns = (upsampling(cells, side, maps.device) for cells, side in axes)
    down, across = (torch.eye(side, dtype=torch.float64, device=maps.device) for side in plan.sides)
    matrices = []
    for scale in plan.scales:
        rows = axis_matrix(scale.height, plan.height, scale.ys, down).to(maps.dtype)
        columns = axis_matrix(scale.width, plan.width, scale.xs, across).to(maps.dtype)
        matrices.append((rows, columns, _reach(rows), _reach(columns)))
    every = plan.positions()
    positions = [every[window] for window in kept.tolist()]
    patches = [
        (index, i, plan.scales[i].ys.index(y), plan.scales[i].xs.index(x)) for index, (i, y, x) in enumerate(positions)
    ]
    up_rows, up_columns = up_rows.to(maps.dtype), up_columns.to(maps.dtype).T

    def band(top: int, bottom: int) -> Tensor:
        total = maps.new_zeros(bottom - top, plan.width)
        count = torch.zeros_like(total)
        for index, i, row, column in patches:
            rows, columns, lines, spans = matrices[i]
            first, last = max(top, lines[row][0]), min(bottom, lines[row][1])
            if first >= last:
                continue
            left, right = spans[column]
            # Whether a pixel counts depends on exact zeros, so the map is up-sampled first, as in the release.
            value = (up_rows @ maps[index] @ up_columns).clamp_(min=0)
            value = rows[first:last, row] @ value @ columns[left:right, column].T
            total[first - top : last - top, left:right] += value
            count[first - top : last - top, left:right] += value > 0
        return total.div_(count.clamp_(min=1))

    return band


def _reach(matrix: Tensor) -> list[tuple[int, int]]:
    """Return for each window the range of pixels that it touches, from its (target, windows, window) matrix."""
    touched = matrix.amax(2) > 0
    ranges = []
    for column in touched.T:
        pixels = column.nonzero()[:, 0]
        ranges.append((int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else (0, 0))
    return ranges


# (plan, maps (T, K, u, v), kept (T, K)) to rows (T, h, W) of the fused maps.
FUSIONS: dict[str, Callable[[Plan, Tensor, Tensor], Rows]] = {"seamless": _seamless, "reference": _reference}


def fuse(
    plan: Plan,
    maps: Tensor,
    scores: Tensor,
    kept: Tensor,
    *,
    fusion: str = "seamless",
    normalize: bool = True,
    smooth: bool = True,
) -> Tensor:
    """Fuse the maps of an image's windows.

    Parameters
    ----------
    plan : Plan
    maps : Tensor, (number kept, u, v)
        The base method's maps of the kept windows, in the order of the plan.
    scores : Tensor, (P,)
        Class score of each window. The weight of a window is its score divided by the largest score.
    kept : Tensor, (P,) bool
    fusion : {"seamless", "reference"}
        ``seamless`` divides the weighted sum by the coverage of all windows, both faded by the plan's `fade`;
        ``reference`` divides by the number of positive values at the pixel, without fading (Tursun et al., ECCV 2022,
        equation 4 as its public release computes it).
    normalize : bool
        Min-max the result, after smoothing. In the other order the range would not be exactly 0 to 1.
    smooth : bool
        Gaussian of 11 x 11 pixels, sigma 5, mirrored at the border.

    Returns
    -------
    Tensor, (plan.height, plan.width)
        In 0..1. If it is normalised, a constant result becomes zero.
    """
    result = maps.new_empty(1, plan.height, plan.width)
    places = kept.nonzero().T
    return fuse_all(plan, maps[None], scores[None], places, result, fusion=fusion, normalize=normalize, smooth=smooth)[
        0
    ]


def fuse_all(
    plan: Plan,
    maps: Tensor,
    scores: Tensor,
    kept: Tensor,
    result: Tensor,
    *,
    fusion: str,
    normalize: bool,
    smooth: bool,
) -> Tensor:
    """Fuse the maps of an image for all of its targets, as `fuse` does, into (T, plan.height, plan.width).

    Parameters
    ----------
    plan : Plan
    maps : Tensor, (T, K, u, v)
    scores : Tensor, (T, P)
    kept : Tensor, (T, K) int64
        The kept windows of each target, ascending.
    result : Tensor, (T, plan.height, plan.width)
        It is filled and returned.
    """
    if fusion not in FUSIONS:
        raise unknown("fusion", fusion, FUSIONS)
    top_score = scores.amax(1, keepdim=True)
    weights = (scores.gather(1, kept) / top_score.masked_fill(top_score <= 0, 1)).to(maps.dtype)
    weighted = min_max(maps.flatten(0, 1), plan.window).view_as(maps) * weights[..., None, None]
    return finish(FUSIONS[fusion](plan, weighted, kept), result, normalize=normalize, smooth=smooth)


def finish(rows: Rows, result: Tensor, *, normalize: bool = True, smooth: bool = True) -> Tensor:
    """Fill a result, (..., H, W), with maps given in bands of rows; smooth and normalise them as `fuse` does."""
    height = result.shape[-2]
    if smooth:
        rows = _smoothed(rows, height)
    step = max(1, BAND_PIXELS // (result.numel() // height))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        result[..., top:bottom, :] = rows(top, bottom)
    if normalize:
        low, high = (extreme((-2, -1), keepdim=True) for extreme in (result.amin, result.amax))
        spread = high - low
        result.sub_(low).div_(spread.masked_fill(spread <= 0, 1))
    return result


@lru_cache(maxsize=256)
def _mirrored(start: int, stop: int, length: int, device: torch.device) -> Tensor:
    """Return indices start..stop mirrored into 0..length, the border pixel not repeated (reflect 101)."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(start, stop, device=device).remainder(period)
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


def _smoothed(rows: Rows, height: int) -> Rows:
    """Blur bands of rows; each band is read with as many extra rows as the kernel reaches."""
    reach = SMOOTHING_SIZE // 2
    kernel = gaussian_kernel(SMOOTHING_SIZE, SMOOTHING_SIGMA)

    def band(top: int, bottom: int) -> Tensor:
        first, last = max(0, top - reach), min(height, bottom + reach)
        values = rows(first, last)
        # Mirrored rows of a band are in the band, except in images shorter than the kernel, which are a single band.
        down = _mirrored(top - reach, bottom + reach, height, values.device)
        across = _mirrored(-reach, values.shape[-1] + reach, values.shape[-1], values.device)
        padded = values.index_select(-2, down - first if first else down).index_select(-1, across)
        return convolved(padded.view(-1, 1, *padded.shape[-2:]), kernel).view(*values.shape[:-2], bottom - top, -1)

    return band
