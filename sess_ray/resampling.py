"""Bilinear resampling along one axis: half-pixel centres, borders clamped (`align_corners=False`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """Return the taps that resample `source` values to `target`, without antialias.

    Coordinates are float64: in float32 they are off by 1e-5 and now and then name another pixel.
    """
    centres = torch.arange(target, dtype=torch.float64, device=device) + 0.5
    coordinates = (centres * (source / target) - 0.5).clamp_(min=0)
    first = coordinates.long().clamp_(max=source - 1)
    return Taps(first, (first + 1).clamp_(max=source - 1), coordinates - first)
