"""Passes through the model that the methods of families B and P are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.models import Model


def input_gradients(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Return d(logit of the target)/d(patch), (N, 3, h, w) float32: one forward and one backward pass."""
    start = patches.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model.module(start).gather(1, targets[:, None])
        (gradient,) = torch.autograd.grad(logits.sum(), start)
    return gradient.float()


@torch.no_grad()
def probabilities(model: Model, inputs: Callable[[slice], Tensor], classes: Tensor, batch_size: int) -> Tensor:
    """Return the softmax probability of classes[i] on input i, (M,) float32.

    Parameters
    ----------
    model : Model
    inputs : callable
        slice to those inputs, (m, 3, h, w): made when they are needed, `batch_size` at a time.
    classes : Tensor, (M,) int64
    batch_size : int
    """
    result = torch.empty(len(classes), device=classes.device)
    for start in range(0, len(classes), batch_size):
        part = slice(start, min(start + batch_size, len(classes)))
        batch = inputs(part).contiguous(memory_format=torch.channels_last)
        result[part] = model.module(batch).float().softmax(1).gather(1, classes[part, None])[:, 0]
    return result


def up_sampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, u, v) at the size of the patches: bilinear, half-pixel centres."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def noisy(patches: Tensor, std: float, generators: list[torch.Generator]) -> Tensor:
    """Add Gaussian noise to patches, each from its own generator; std in units of the patch's range (max - min)."""
    noise = torch.stack(
        [
            torch.randn(patch.shape, generator=generator, device=patch.device)
            for patch, generator in zip(patches, generators, strict=True)
        ]
    )
    spread = patches.float().amax((1, 2, 3)) - patches.float().amin((1, 2, 3))
    return (patches + noise * (std * spread).view(-1, 1, 1, 1)).to(patches.dtype)
