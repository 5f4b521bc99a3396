"""Bilinear resampling along one axis: half-pixel centres, borders clamped (`align_corners=False`).

Coordinates and weights are float64: in float32 they are off by 1e-5 and now and then name another pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

Rows = Callable[[int, int], Tensor]  # first and last row of a large result, to those rows of it


@dataclass(frozen=True)
class Taps:
    """Where resampling reads: pixel i of the result is (1 - fraction) source[first] + fraction source[second].

    Attributes
    ----------
    first, second : Tensor, (target,) int64
    fraction : Tensor, (target,) float64
    """

    first: Tensor
    second: Tensor
    fraction: Tensor


def taps(source: int, target: int, device: torch.device) -> Taps:
    """Return the taps that resample `source` values to `target`, without antialias."""
    centres = torch.arange(target, dtype=torch.float64, device=device) + 0.5
    coordinates = (centres * (source / target) - 0.5).clamp_(min=0)
    first = coordinates.long().clamp_(max=source - 1)
    return Taps(first, (first + 1).clamp_(max=source - 1), coordinates - first)


def upsampling(cells: int, window: int, device: torch.device) -> Tensor:
    """Return the (window, cells) float64 matrix that resamples `cells` values to `window` pixels."""
    matrix = torch.zeros(window, cells, dtype=torch.float64, device=device)
    at = taps(cells, window, device)
    matrix.scatter_add_(1, at.first[:, None], 1 - at.fraction[:, None])
    return matrix.scatter_add_(1, at.second[:, None], at.fraction[:, None])


def antialiased(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where antialiased resampling reads, and how much: a triangle as wide as the reduction.

    Parameters
    ----------
    source, target : int
        Lengths of the axis.
    device : torch.device

    Returns
    -------
    positions : Tensor, (target, k) int64
    weights : Tensor, (target, k) float64
        Each row sums to 1. Enlarging takes two neighbours, as `taps` does.
    """
    scale = source / target
    width = max(scale, 1.0)
    centres = (torch.arange(target, dtype=torch.float64, device=device) + 0.5) * scale - 0.5
    first = (centres - width).floor().long() + 1
    positions = first[:, None] + torch.arange(2 * ceil(width), device=device)
    weights = (1 - (positions - centres[:, None]).abs() / width).clamp_(min=0)
    weights *= (positions >= 0) & (positions < source)
    return positions.clamp_(0, source - 1), weights / weights.sum(1, keepdim=True)
