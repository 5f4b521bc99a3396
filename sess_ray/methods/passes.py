"""Passes through the model, from which the methods of families B and P are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sess_ray.errors import SessError
from sess_ray.models import Model
from sess_ray.models.model import Tap, unreached
from sess_ray.resampling import upsampling


def input_gradients(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Return d(logit of the target)/d(patch), (N, 3, h, w) float32: one forward and one backward pass."""
    start = patches.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model.module(start)
        if not logits.requires_grad:
            raise SessError(f"{model.name}: {unreached('the pixels')}")
        (gradient,) = torch.autograd.grad(model.logit_of(logits, targets).sum(), start)
    return gradient.float()


@torch.no_grad()
def probabilities(model: Model, inputs: Callable[[slice], Tensor], classes: Tensor, batch_size: int) -> Tensor:
    """Return the probabilities of targets classes[i] on input i, (M, T) float32.

    Parameters
    ----------
    model : Model
    inputs : callable
        Takes a slice and returns those inputs, (m, 3, h, w); called on demand, for `batch_size` inputs at a time.
    classes : Tensor, (M, T) int64
    batch_size : int
    """
    result = torch.empty(classes.shape, device=classes.device)
    for start in range(0, len(classes), batch_size):
        part = slice(start, min(start + batch_size, len(classes)))
        batch = inputs(part).contiguous(memory_format=torch.channels_last)
        result[part] = model.probabilities(model.logits(batch)).gather(1, classes[part])
    return result


@dataclass(frozen=True)
class Shared:
    """Which rows of a batch share a patch, for passes that are the same for every target of a patch.

    Attributes
    ----------
    rows : Tensor, (U,) int64
        The first row of each patch, ascending.
    classes : Tensor, (U, T) int64
        Targets of each patch, padded with zeros if another patch has more.
    own : tuple of two Tensors, (N,) int64
        Where the target of each row is in `classes`: ``values[shared.own]`` takes (U, T, ...) to (N, ...).

    Examples
    --------
    >>> shared = Shared.of(targets=torch.tensor([7, 8, 9]), same_as=torch.tensor([0, 0, 2]))
    >>> shared.rows.tolist(), shared.classes.tolist(), shared.classes[shared.own].tolist()
    ([0, 2], [[7, 8], [9, 0]], [7, 8, 9])
    """

    rows: Tensor
    classes: Tensor
    own: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, targets: Tensor, same_as: Tensor) -> Shared:
        rows, patch = same_as.unique(return_inverse=True)
        place = (same_as == same_as[:, None]).tril(-1).sum(1)
        classes = targets.new_zeros(len(rows), int(place.max()) + 1)
        classes[patch, place] = targets
        return cls(rows, classes, (patch, place))

    def gradients(self, tap: Tap) -> Tensor:
        """Return each row's gradient at the layer, (N, K, u, v), for a tap of `rows`: one forward for all targets."""
        patch, place = self.own
        found = tap.activations.new_empty(len(patch), *tap.activations.shape[1:])
        for number, classes in enumerate(self.classes.T):
            rows = (place == number).nonzero()[:, 0]
            found[rows] = tap.gradients(classes, patch[rows])
        return found


def up_sampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (..., u, v) up-sampled to the size of the patches: bilinear, half-pixel centres."""
    rows, columns = (enlarging(*axis, maps.device) for axis in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.T


@lru_cache(maxsize=16)
def enlarging(cells: int, length: int, device: torch.device) -> Tensor:
    """Return the (length, cells) float32 matrix of bilinear weights that `up_sampled` takes for an axis."""
    return upsampling(cells, length, device).float()


def noisy(patches: Tensor, std: float, generators: list[torch.Generator], samples: int) -> Iterator[Tensor]:
    """Yield copies of patches with Gaussian noise, each patch with its own generator.

    `std` is in units of the patch's range, max - min. The noise is drawn in the order (h, w, 3) of channels_last.
    """
    n, c, h, w = patches.shape
    spreads = patches.amax((1, 2, 3)).float() - patches.amin((1, 2, 3)).float()
    scales = (std * spreads).tolist()
    noise = torch.empty(n, h, w, c, device=patches.device)
    for _ in range(samples):
        for row, scale, generator in zip(noise, scales, generators, strict=True):
            row.normal_(0, scale, generator=generator)
        yield (patches + noise.permute(0, 3, 1, 2)).to(patches.dtype)
