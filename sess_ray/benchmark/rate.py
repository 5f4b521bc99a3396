"""What a machine multiplies in a second, and what a forward pass asks of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends import mha
from torch.utils.flop_counter import FlopCounterMode

from sess_ray.models import Model

SIDES = {"cpu": 2048, "cuda": 8192}  # large enough that all of the time is multiplied


def matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a square matrix to measure `multiply` with."""
    side = SIDES.get(device.type, SIDES["cuda"])
    return torch.rand(side, side, device=device).to(dtype)


def multiply(values: Tensor) -> Tensor:
    return values @ values


def flops_of_product(values: Tensor) -> int:
    """Return the floating-point operations of `multiply`: a multiplication and an addition for each pair."""
    return 2 * len(values) ** 3


@torch.no_grad()
def flops_of_window(model: Model) -> int:
    """Return those of a window's forward pass; only convolutions, matrix products and attention count."""
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)  # of it torch counts nothing
    try:
        with FlopCounterMode(display=False) as counter:
            model.module(model.probe())
    finally:
        mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()
