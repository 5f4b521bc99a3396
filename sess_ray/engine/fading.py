"""Windows that fade towards their borders, so that a kept window beside a dropped one leaves no edge in the map."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-3  # at a border: where windows only touch, their mean is still the mean of both


def faded(scaled: int | Tensor, target: int, starts: Tensor, window: int, fade: float) -> Tensor:
    """Return the weights of windows at the pixels of the image, along one axis.

    The weight rises linearly from `LEAST` at a border to 1, over `fade * window` pixels of the scaled image. Windows do
    not fade at the borders of the image itself.

    Parameters
    ----------
    scaled : int or Tensor, (windows,)
        Length of the axis in the windows' scaled images.
    target : int
        Length of the axis in the image.
    starts : Tensor, (windows,)
        First pixels of the windows in the scaled image.
    window : int
        Length of a window.
    fade : float
        Above 0, at most 0.5.

    Returns
    -------
    Tensor, (target, windows) float64
    """
    centres = (torch.arange(target, dtype=torch.float64, device=starts.device) + 0.5)[:, None] * (scaled / target)
    into, left = (centres - starts) / (fade * window), (starts + window - centres) / (fade * window)
    into, left = into.where(starts > 0, 1.0), left.where(starts + window < scaled, 1.0)
    return torch.minimum(into, left).clamp_(LEAST, 1.0)
