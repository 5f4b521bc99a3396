"""Family P: class activation maps averaged over noisy copies of a patch, or over its sizes."""

from __future__ import annotations

from itertools import accumulate
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.methods.passes import Shared, enlarging, noisy
from sess_ray.methods.registry import register
from sess_ray.models import Model
from sess_ray.resampling import taps
from sess_ray.windows import enlarged, in_words


@register(
    "smooth_gradcam++",
    family="P",
    reaches="layer",
    paper="Omeiza et al., Smooth Grad-CAM++, 2019",
    passes="25 forwards + head backwards",
)
def smooth_gradcam_plus_plus(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    activations: Tensor,
    same_as: Tensor,
    generators: list[torch.Generator],
    samples: int = 25,
    std: float = 0.15,
) -> Tensor:
    """Run Grad-CAM++ with g, g^2 and g^3 averaged over noisy copies of the patch, and the clean patch's activations.

    `std` is in units of the patch's range, max - min.
    """
    first, second, third = (torch.zeros_like(activations) for _ in range(3))
    shared = Shared.of(targets, same_as)
    own = [generators[row] for row in shared.rows.tolist()]
    for copies in noisy(patches[shared.rows], std, own, samples):
        gradients = shared.gradients(model.tap(copies))
        first += gradients / samples
        second += gradients**2 / samples
        third += gradients**3 / samples
    denominators = 2 * second + activations.sum((2, 3), keepdim=True) * third
    alphas = second / torch.where(denominators == 0, 1.0, denominators)
    weights = (alphas * first.relu()).sum((2, 3))
    return torch.einsum("nk,nkuv->nuv", weights, activations).relu_()


CHANNELS = 32  # channels enlarged at a time, so that their rows stay in the cache


def _takes_other_sizes(model: Model) -> str | None:
    try:
        model.tap(model.probe(size=enlarged(model.input_size, 100)))
    except Exception:
        return f"it takes inputs of {in_words(model.input_size)} pixels alone, and this method enlarges them"
    return None


@register(
    "cameras",
    family="P",
    reaches="layer",
    paper="Jalwana et al., CAMERAS, CVPR 2021",
    passes="8 forwards + head backwards at 1 to 17 times the pixels",
    check=_takes_other_sizes,
)
def cameras(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    same_as: Tensor,
    batch_size: int,
    sizes: int = 8,
    step: int = 100,
) -> Tensor:
    """Average activations and gradients, each over sizes s of the patch: ReLU(sum_k mean_s A_k mean_s g_k).

    The patch is enlarged (bicubic) by `step` pixels from one size to the next; one that is not square by the factor by
    which a square of its area becomes so much wider.
    """
    height, width = patches.shape[2:]
    together = max(1, batch_size * height * width // prod(enlarged((height, width), step * (sizes - 1))))
    maps = torch.empty(len(patches), height, width, device=patches.device)
    for some in same_as.unique().split(together):
        rows = torch.isin(same_as, some)
        maps[rows] = _cameras(model, patches[some], Shared.of(targets[rows], same_as[rows]), sizes, step)
    return maps


def _cameras(model: Model, patches: Tensor, shared: Shared, sizes: int, step: int) -> Tensor:
    """Return the maps of all rows that share these patches."""
    own = patches.shape[2], patches.shape[3]
    activations, gradients = [], []  # at the layer's own size: all sizes together need less memory than one enlarged
    for number in range(sizes):
        resized, size = patches.float().contiguous(), enlarged(own, step * number)
        if size != own:
            resized = F.interpolate(resized, size=size, mode="bicubic", align_corners=False)
        tap = model.tap(resized.to(patches.dtype).contiguous(memory_format=torch.channels_last))
        activations.append(tap.activations.contiguous())
        gradients.append(shared.gradients(tap).contiguous())
    mean = _MeanEnlarged([(one.shape[2], one.shape[3]) for one in activations], own, patches.device)
    owner = shared.own[0]
    result = torch.zeros(len(owner), *own, device=patches.device)
    for patch in range(len(patches)):
        for first in range(0, activations[0].shape[1], CHANNELS):
            part = slice(first, first + CHANNELS)
            seen = mean([one[patch, part] for one in activations])
            for row in (owner == patch).nonzero()[:, 0].tolist():
                result[row] += (seen * mean([one[row, part] for one in gradients])).sum(1)
    return result.relu_()


class _MeanEnlarged:
    """The mean of maps of several sizes (u, v), all enlarged to (h, w).

    Columns are enlarged by a matrix product; then a row of the result is a weighted sum of two rows of each size.
    """

    def __init__(self, sizes: list[tuple[int, int]], size: tuple[int, int], device: torch.device) -> None:
        self.columns = [enlarging(v, size[1], device).T for _, v in sizes]
        axes = [taps(u, size[0], device) for u, _ in sizes]
        begins = accumulate((u for u, _ in sizes[:-1]), initial=0)
        positions = [tap + begin for axis, begin in zip(axes, begins, strict=True) for tap in (axis.first, axis.second)]
        weights = [weight / len(sizes) for axis in axes for weight in (1 - axis.fraction, axis.fraction)]
        self.positions, self.weights = torch.stack(positions, 1), torch.stack(weights, 1).float()

    def __call__(self, maps: list[Tensor]) -> Tensor:
        """Return (h, K, w) for maps (K, u, v), one of each size."""
        wide = [own.transpose(0, 1) @ columns for own, columns in zip(maps, self.columns, strict=True)]
        rows = F.embedding_bag(self.positions, torch.cat(wide).flatten(1), per_sample_weights=self.weights, mode="sum")
        return rows.view(len(rows), *wide[0].shape[1:])
