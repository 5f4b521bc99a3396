"""Bilinear resampling along one axis: half-pixel centres, borders clamped (`align_corners=False`).

Coordinates and weights are float64: in float32 they are off by 1e-5 and now and then name another pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from sess_ray.transfer import upload

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


@lru_cache(maxsize=64)
def upsampling_on(cells: int, window: int, device: torch.device) -> Tensor:
    """Return `upsampling`, made on the host and kept on a device."""
    return upload(upsampling(cells, window, torch.device("cpu")), device)


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
    [found] = antialiased_axes([(source, target)], device)
    return found


def antialiased_axes(
    axes: Sequence[tuple[int, int]], device: torch.device, dtype: torch.dtype = torch.float64
) -> list[tuple[Tensor, Tensor]]:
    """Return what `antialiased` does for many (source, target), in few operations: some for each k."""
    taps = [2 * ceil(max(source / target, 1.0)) for source, target in axes]
    facts = torch.tensor(
        [(source, source / target, max(source / target, 1.0)) for source, target in axes], dtype=torch.float64
    )
    groups = {k: [number for number, own in enumerate(taps) if own == k] for k in sorted(set(taps))}
    order = [number for own in groups.values() for number in own]
    facts = upload(facts[order], device)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    first = 0
    for k, own in groups.items():
        targets = [axes[number][1] for number in own]
        positions, weights = _triangles(facts[first : first + len(own)], targets, k)
        parts = zip(own, positions.split(targets), weights.to(dtype).split(targets), strict=True)
        found |= {number: both for number, *both in parts}  # type: ignore[misc]
        first += len(own)
    return [found[number] for number in range(len(axes))]


def _triangles(facts: Tensor, targets: list[int], k: int) -> tuple[Tensor, Tensor]:
    """Return positions and weights, (sum of targets, k), of axes with (source, scale, width) and k taps each."""
    device = facts.device
    if len(targets) > 1:
        # Begins of the axes, so that pixels are counted from 0 in each.
        ends = torch.tensor(targets).cumsum(0)
        rows = torch.arange(int(ends[-1]), device=device)
        counts = upload(torch.stack([torch.tensor(targets), ends - torch.tensor(targets)]), device)
        axis = torch.repeat_interleave(counts[0], output_size=int(ends[-1]))
        source, scale, width = facts[axis].T[:, :, None]
        pixels = (rows - counts[1][axis])[:, None]
    else:
        [(source, scale, width)] = facts[:, :, None, None]
        pixels = torch.arange(targets[0], device=device)[:, None]
    centres = (pixels.double() + 0.5) * scale - 0.5
    first = (centres - width).floor().long() + 1
    positions = first + torch.arange(k, device=device)
    weights = (1 - (positions - centres).abs() / width).clamp_(min=0)
    weights *= (positions >= 0) & (positions < source)
    positions = torch.minimum(positions.clamp_(min=0), source.long() - 1)
    return positions, weights / weights.sum(1, keepdim=True)
