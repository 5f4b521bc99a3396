"""Where windows' maps lie in the image, scale by scale: with the fewest multiplications, which matter on a CPU.

What a row of windows adds to the image is one matrix product per axis: resampling (window to image) times up-sampling
(map to window). `sess_ray.engine.placing` does the same in the fewest operations.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.engine.fading import faded
from sess_ray.resampling import Rows, taps, upsampling
from sess_ray.transfer import upload
from sess_ray.windows import Plan


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
    begins = upload(torch.tensor(starts), up.device)
    first = (at.first[:, None] - begins + 1).clamp_(0, window + 1)
    second = (at.second[:, None] - begins + 1).clamp_(0, window + 1)
    fraction = at.fraction[:, None, None]
    matrix = padded[first] * (1 - fraction) + padded[second] * fraction
    return matrix * faded(scaled, target, begins, window, fade)[..., None] if fade else matrix


# The targets of an image, and consecutive images of one size, share their matrices; a few sizes need little memory.
@lru_cache(maxsize=4)
def scale_matrices(
    plan: Plan, u: int, v: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return for each scale what its windows' cells add to rows (H, windows, u) and to columns (W, windows, v)."""
    up_rows, up_columns = (upsampling(cells, side, device) for cells, side in zip((u, v), plan.sides, strict=True))
    return tuple(
        (
            axis_matrix(scale.height, plan.height, scale.ys, up_rows, plan.fade).to(dtype),
            axis_matrix(scale.width, plan.width, scale.xs, up_columns, plan.fade).to(dtype),
        )
        for scale in plan.scales
    )


def placed(maps: Tensor, chosen: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three matrices whose product is the sum of one scale's maps, each placed where its window is in the image.

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
    """Divide a sum by its coverage; the result is 0 where steps longer than a window leave gaps."""
    return total / coverage.masked_fill(coverage == 0, 1)


def scale_by_scale(plan: Plan, maps: Tensor, kept: Tensor) -> Rows:
    """Return bands of the sum of the kept windows' maps over the coverage of all windows of the plan.

    Parameters
    ----------
    plan : Plan
    maps : Tensor, (K, u, v)
    kept : Tensor, (K,) int64
        The windows of the maps, ascending.
    """
    matrices = scale_matrices(plan, *maps.shape[1:], maps.dtype, maps.device)
    chosen = torch.zeros(plan.num_patches, dtype=torch.bool).index_fill_(0, kept, value=True)
    marks = [chosen[own] for own in plan.slices()]
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
