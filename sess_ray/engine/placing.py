"""Where the cells of windows' maps lie in the image: all windows of a plan at once, in a handful of operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.engine.fading import faded
from sess_ray.resampling import upsampling_on
from sess_ray.transfer import Latest, upload
from sess_ray.windows import Plan

PLACEMENT_BYTES = 1 << 28
CHUNK = 1 << 24  # numbers in memory at a time


@dataclass(frozen=True)
class Placement:
    """What each window's cells add to the image's rows and to its columns (bilinear resampling is separable).

    Attributes
    ----------
    rows : Tensor, (distinct lines of windows, H, u)
    columns : Tensor, (distinct columns of windows, v, W)
    row_of, column_of : Tensor, (P,) int64
        For each window, its index in `rows` and in `columns`.
    covered_rows, covered_columns : Tensor, (H, scales) and (scales, W)
        Their product is how many windows cover a pixel.
    """

    rows: Tensor
    columns: Tensor
    row_of: Tensor
    column_of: Tensor
    covered_rows: Tensor
    covered_columns: Tensor

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.columns.nbytes

    def summed(self, maps: Tensor, windows: Tensor, top: int = 0, bottom: int | None = None) -> Tensor:
        """Return the sum of maps, each placed where its window is in the image.

        Parameters
        ----------
        maps : Tensor, (T, K, u, v)
        windows : Tensor, (T, K) int64
            The windows of the maps.
        top, bottom : int
            Rows of the image; all by default.

        Returns
        -------
        Tensor, (T, bottom - top, W)
        """
        rows = self.rows[:, top:bottom]
        targets, count, u, v = maps.shape
        most = max(1, CHUNK // (targets * (rows.shape[1] * (u + 2 * v) + v * self.columns.shape[2])))
        total = None
        for first in range(0, count, most):
            part, own = maps[:, first : first + most], windows[:, first : first + most]
            left = (rows[self.row_of[own]] @ part).transpose(1, 2).flatten(2)  # (T, h, K v)
            right = self.columns[self.column_of[own]].flatten(1, 2)  # (T, K v, W)
            total = left @ right if total is None else total.baddbmm_(left, right)
        assert total is not None
        return total

    def coverage(self, top: int = 0, bottom: int | None = None) -> Tensor:
        """Return how many windows cover each pixel, (bottom - top, W)."""
        return self.covered_rows[top:bottom] @ self.covered_columns


def _placement(plan: Plan, u: int, v: int, dtype: torch.dtype, device: torch.device) -> Placement:
    lines = [(scale.height, y) for scale in plan.scales for y in scale.ys]
    columns = [(scale.width, x) for scale in plan.scales for x in scale.xs]
    places: list[tuple[int, int]] = []
    line = column = 0
    for scale in plan.scales:
        places += [(line + i, column + j) for i in range(len(scale.ys)) for j in range(len(scale.xs))]
        line, column = line + len(scale.ys), column + len(scale.xs)
    facts = torch.tensor([*lines, *columns, *places]).T.contiguous()
    scaled, starts = upload(facts, device)
    first, last = len(lines), len(lines) + len(columns)
    row_of, column_of = scaled[last:], starts[last:]
    up_rows, up_columns = (upsampling_on(cells, side, device) for cells, side in zip((u, v), plan.sides, strict=True))
    parts = [
        (slice(0, first), plan.height, up_rows, [len(scale.ys) for scale in plan.scales]),
        (slice(first, last), plan.width, up_columns, [len(scale.xs) for scale in plan.scales]),
    ]
    (down, covered_down), (across, covered_across) = (
        _axis(scaled[own], starts[own], target, up, counts, dtype, plan.fade) for own, target, up, counts in parts
    )
    return Placement(down, across.transpose(1, 2).contiguous(), row_of, column_of, covered_down.T, covered_across)


placement = Latest(_placement, PLACEMENT_BYTES)


def _axis(
    scaled: Tensor, starts: Tensor, target: int, up: Tensor, counts: list[int], dtype: torch.dtype, fade: float
) -> tuple[Tensor, Tensor]:
    """Return what each cell of each window adds to each pixel along an axis, (n, target, cells), and scale by scale.

    Parameters
    ----------
    scaled, starts : Tensor, (n,) int64
        Length of the axis in each window's scaled image, and the window's first pixel there.
    target : int
        Length of the axis in the image.
    up : Tensor, (window, cells) float64
        Up-sampling of a map to its window. Outside its window a patch is zero: a tap that reads past the border adds
        nothing.
    counts : list of int
        Number of windows of each scale.
    dtype : torch.dtype
    fade : float
        Share of the windows' sides over which they fade.
    """
    window = len(up)
    padded = F.pad(up, (0, 0, 1, 1))
    scaled, before = scaled[:, None], starts[:, None] - 1
    last = scaled - 1
    centres = torch.arange(0.5, target, dtype=torch.float64, device=up.device)
    coordinates = (centres * (scaled.double() / target) - 0.5).clamp_(min=0)
    first = torch.minimum(coordinates.long(), last)
    fraction = (coordinates - first)[..., None]
    second = torch.minimum(first + 1, last)
    first, second = ((at - before).clamp_(0, window + 1) for at in (first, second))
    most = max(1, CHUNK // (target * up.shape[1]))
    parts = zip(first.split(most), second.split(most), fraction.split(most), strict=True)
    made = torch.cat([padded[one].lerp_(padded[two], share).to(dtype) for one, two, share in parts])
    if fade:
        made *= faded(scaled[:, 0].double(), target, starts, window, fade).T[..., None].to(dtype)
    members = torch.eye(len(counts), dtype=dtype).repeat_interleave(torch.tensor(counts), 1)
    return made, upload(members, up.device) @ made.sum(2)
