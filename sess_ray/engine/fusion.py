"""From one map a patch to one map an image: min-max, pre-filter, calibrate, weigh, average, smooth.

Nothing here is ever as large as (patches x H x W). A window covers a rectangle of the image, and bilinear resampling is
separable, so what a row of windows adds to the image is one matrix product an axis: resampling (window to image)
times up-sampling (map to window). The image itself is made in bands of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.blur import convolved, gaussian_kernel
from sess_ray.engine.fading import faded
from sess_ray.errors import unknown
from sess_ray.resampling import Rows, taps, upsampling
from sess_ray.windows import Plan

BAND_PIXELS = 1 << 21
SMOOTHING_SIZE = 11
SMOOTHING_SIGMA = 5.0

Fusion = Literal["seamless", "reference"]


def axis_matrix(scaled: int, target: int, starts: tuple[int, ...], up: Tensor, fade: float = 0.0) -> Tensor:
    """Return what each cell of each window adds to each pixel of the image, along one axis.

    Parameters
    ----------
    scaled, target : int
        Lengths of the axis in the scaled image and in the image.
    starts : tuple of int
        First pixels of the windows in the scaled image.
    up : Tensor, (window, cells) float64
        Up-sampling of a map to its window.
    fade : float
        Share of the windows' sides over which they fade.

    Returns
    -------
    Tensor, (target, windows, cells) float64
        Outside its window a patch is zero: a tap that reads past the border adds nothing.
    """
    window = up.shape[0]
    padded = F.pad(up, (0, 0, 1, 1))
    at = taps(scaled, target, up.device)
    begins = torch.tensor(starts, device=up.device)
    first = (at.first[:, None] - begins + 1).clamp_(0, window + 1)
    second = (at.second[:, None] - begins + 1).clamp_(0, window + 1)
    fraction = at.fraction[:, None, None]
    matrix = padded[first] * (1 - fraction) + padded[second] * fraction
    return matrix * faded(scaled, target, begins, window, fade)[..., None] if fade else matrix


def keep(scores: Tensor, ratio: float, scored: Tensor | None = None) -> Tensor:
    """Pre-filter: mark the patches to keep.

    Sorted by score, ascending and stable, patches from int(P * ratio) on are kept: all for 0, always at least one.

    Parameters
    ----------
    scores : Tensor, (P,)
    ratio : float
        Share of the patches to drop, 0 <= ratio <= 1.
    scored : Tensor, (P,) bool, optional
        Patches that have a score; the others are the first to be dropped, and none of them is kept.

    Returns
    -------
    Tensor, (P,) bool
    """
    count = len(scores)
    dropped = count - num_kept(count, ratio)
    kept = torch.ones_like(scores, dtype=torch.bool)
    if scored is not None:
        scores, kept = scores.where(scored, -torch.inf), scored.clone()
    kept[scores.argsort(stable=True)[:dropped]] = False
    return kept


def num_kept(count: int, ratio: float) -> int:
    """Return how many of `count` patches the pre-filter keeps."""
    return max(1, count - int(count * ratio))


def _extreme_rows(cells: int, window: int, device: torch.device) -> Tensor:
    """Return the rows of the up-sampled map among which its extremes are.

    Between two cells a bilinear map is linear along each axis, so on the pixels there it is largest (and smallest) at
    the first or the last of them.
    """
    if cells >= window:
        return torch.arange(window, device=device)
    first = taps(cells, window, device).first
    change = (first[1:] != first[:-1]).nonzero()[:, 0]
    ends = torch.tensor([0, window - 1], device=device)
    return torch.cat([ends, change, change + 1]).unique()


def min_max(maps: Tensor, window: int) -> Tensor:
    """Scale maps so that, up-sampled to the window, each runs from 0 to 1.

    Parameters
    ----------
    maps : Tensor, (N, u, v)
    window : int
        Side of the window, in whose pixels the minimum and maximum are taken.

    Returns
    -------
    Tensor, (N, u, v)
        Constant maps, and maps that are not finite, become zero.
    """
    n, u, v = maps.shape
    values = maps.flatten(1)
    if (u, v) != (window, window):
        rows = upsampling(u, window, maps.device)[_extreme_rows(u, window, maps.device)].to(maps.dtype)
        columns = upsampling(v, window, maps.device)[_extreme_rows(v, window, maps.device)].to(maps.dtype)
        values = (rows @ maps @ columns.T).flatten(1)
    low, high = values.amin(1), values.amax(1)
    spread = high - low
    # A map is constant when its spread is what rounding leaves of equal values.
    alive = (spread > torch.finfo(maps.dtype).eps * 8 * high.abs().maximum(low.abs())) & spread.isfinite()
    scaled = (maps - low.view(n, 1, 1)) / spread.where(alive, 1).view(n, 1, 1)
    return scaled.where(alive.view(n, 1, 1), 0)


# The targets of an image, and images of one size in a row, share their matrices; a few sizes are little memory.
@lru_cache(maxsize=4)
def scale_matrices(
    plan: Plan, u: int, v: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return for each scale what its windows' cells add to rows (H, windows, u) and to columns (W, windows, v)."""
    up_rows, up_columns = (upsampling(cells, plan.window, device) for cells in (u, v))
    return tuple(
        (
            axis_matrix(scale.height, plan.height, scale.ys, up_rows, plan.fade).to(dtype),
            axis_matrix(scale.width, plan.width, scale.xs, up_columns, plan.fade).to(dtype),
        )
        for scale in plan.scales
    )


def placed(maps: Tensor, chosen: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three matrices whose product is the sum of one scale's maps, each where its window is in the image.

    Parameters
    ----------
    maps : Tensor, (n, u, v)
        Maps of the chosen windows.
    chosen : Tensor, (windows of the scale,) bool, on the CPU
    rows, columns : Tensor
        The scale's `scale_matrices`.

    Returns
    -------
    tuple of Tensor
        (H, a), (a, b) and (b, W).
    """
    u, v = maps.shape[1:]
    grid = chosen.view(rows.shape[1], columns.shape[1])
    down, across = (grid.any(axis).nonzero()[:, 0].to(maps.device) for axis in (1, 0))
    cells = maps.new_zeros(len(down), len(across), u, v)
    cells[grid[grid.any(1)][:, grid.any(0)].to(maps.device)] = maps
    cells = cells.permute(0, 2, 1, 3).reshape(len(down) * u, len(across) * v)
    return rows[:, down].flatten(1), cells, columns[:, across].flatten(1).T


def summed(maps: Tensor, chosen: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of one scale's maps and the coverage of all of its windows, both (H, W); arguments of `placed`."""
    down, cells, across = placed(maps, chosen, rows, columns)
    return down @ cells @ across, rows.sum((1, 2))[:, None] * columns.sum((1, 2))


def over(total: Tensor, coverage: Tensor) -> Tensor:
    """Divide a sum by its coverage, which is 0 where steps longer than a window leave gaps: nothing is known there."""
    return total / coverage.masked_fill(coverage == 0, 1)


def _seamless(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Sum of the weighted maps over the coverage of all windows of the plan, kept or dropped."""
    matrices = scale_matrices(plan, *maps.shape[1:], maps.dtype, maps.device)
    kept = kept.cpu()
    marks = [kept[own] for own in plan.slices()]
    parts = maps.split([int(own.sum()) for own in marks])
    used = [placed(part, own, *both) for own, part, both in zip(marks, parts, matrices, strict=True) if len(part)]
    covered_rows = torch.stack([rows.sum((1, 2)) for rows, _ in matrices], 1)
    covered_columns = torch.stack([columns.sum((1, 2)) for _, columns in matrices])

    def band(top: int, bottom: int) -> Tensor:
        total = maps.new_zeros(bottom - top, plan.width)
        for rows, grid, columns in used:
            total.addmm_(rows[top:bottom] @ grid, columns)
        coverage = covered_rows[top:bottom] @ covered_columns
        return over(total, coverage)

    return band


def _reference(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Mean of the positive weighted values at each pixel, as the public release takes it, seams included."""
    u, v = maps.shape[1:]
    up_rows, up_columns = (upsampling(cells, plan.window, maps.device) for cells in (u, v))
    whole = torch.eye(plan.window, dtype=torch.float64, device=maps.device)
    matrices = []
    for scale in plan.scales:
        rows = axis_matrix(scale.height, plan.height, scale.ys, whole).to(maps.dtype)
        columns = axis_matrix(scale.width, plan.width, scale.xs, whole).to(maps.dtype)
        matrices.append((rows, columns, _reach(rows), _reach(columns)))
    positions = [position for position, on in zip(plan.positions(), kept.tolist(), strict=True) if on]
    patches = [
        (index, i, plan.scales[i].ys.index(y), plan.scales[i].xs.index(x)) for index, (i, y, x) in enumerate(positions)
    ]
    up_rows, up_columns = up_rows.to(maps.dtype), up_columns.to(maps.dtype).T

    def band(top: int, bottom: int) -> Tensor:
        total = maps.new_zeros(bottom - top, plan.width)
        count = torch.zeros_like(total)
        for index, i, row, column in patches:
            rows, columns, down, across = matrices[i]
            first, last = max(top, down[row][0]), min(bottom, down[row][1])
            if first >= last:
                continue
            left, right = across[column]
            # Whether a pixel counts depends on exact zeros: the map is up-sampled before anything else, as there.
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
        Base maps of the kept windows, in the order of the plan.
    scores : Tensor, (P,)
        Class score of each window. The weight of a window is its score over the largest.
    kept : Tensor, (P,) bool
    fusion : {"seamless", "reference"}
        ``seamless`` divides the weighted sum by the coverage of all windows, both faded as the plan says;
        ``reference`` by the number of positive values at the pixel, and nothing fades (Tursun et al., ECCV 2022,
        equation 4 as its public release computes it).
    normalize : bool
        Min-max the result, after smoothing: the two commute but for the range, which so is exactly 0 to 1.
    smooth : bool
        Gaussian of 11 x 11 pixels, sigma 5, mirrored at the border.

    Returns
    -------
    Tensor, (plan.height, plan.width)
        In 0..1. A constant result becomes zero where it is normalised.
    """
    if fusion not in FUSIONS:
        raise unknown("fusion", fusion, FUSIONS)
    top_score = scores.max()
    weights = (scores / top_score.where(top_score > 0, 1))[kept].to(maps.dtype)
    weighted = min_max(maps, plan.window) * weights.view(-1, 1, 1)
    rows = FUSIONS[fusion](plan, weighted, kept)
    return finish(rows, maps.new_empty(plan.height, plan.width), normalize=normalize, smooth=smooth)


def finish(rows: Rows, result: Tensor, *, normalize: bool = True, smooth: bool = True) -> Tensor:
    """Fill a result, (H, W), with a map that is made in bands of rows; smooth and normalise it as `fuse` does."""
    height, width = result.shape
    if smooth:
        rows = _smoothed(rows, height)
    step = max(1, BAND_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        result[top:bottom] = rows(top, bottom)
    if normalize:
        low, high = result.amin(), result.amax()
        spread = high - low
        result.sub_(low).div_(spread.where(spread > 0, 1))
    return result


def _mirrored(start: int, stop: int, length: int, device: torch.device) -> Tensor:
    """Return indices start..stop mirrored into 0..length, the border pixel not repeated (reflect 101)."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(start, stop, device=device).remainder(period)
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


def _smoothed(rows: Rows, height: int) -> Rows:
    """Blur bands of rows; a band takes as many more rows as the kernel reaches."""
    reach = SMOOTHING_SIZE // 2
    kernel = gaussian_kernel(SMOOTHING_SIZE, SMOOTHING_SIGMA)

    def band(top: int, bottom: int) -> Tensor:
        first, last = max(0, top - reach), min(height, bottom + reach)
        values = rows(first, last)
        down = _mirrored(top - reach, bottom + reach, height, values.device) - first
        # A mirrored row of a band lies within it, except in images shorter than the kernel, which are one band.
        across = _mirrored(-reach, values.shape[1] + reach, values.shape[1], values.device)
        return convolved(values[down][:, across][None, None], kernel)[0, 0]

    return band
