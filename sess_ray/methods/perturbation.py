"""Family P: from the scores of masked patches."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Annotated, Literal

import torch
from torch import Tensor

from sess_ray.blur import blurred, gaussian_kernel
from sess_ray.methods.options import Above0
from sess_ray.methods.passes import Shared, probabilities, up_sampled
from sess_ray.methods.registry import register
from sess_ray.models import Model

BLUR = gaussian_kernel(51, 50.0)


def _alive(maps: Tensor) -> Tensor:
    """Mark maps (..., u, v) that are not constant."""
    return maps.amax((-2, -1)) > maps.amin((-2, -1))


def _masks(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, u, v) up-sampled, then min-max: masks (N, h, w) from 0 to 1."""
    up = up_sampled(maps, size)
    low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
    return (up - low) / (high - low).where(high > low, 1)


def _of_rows(patches: Tensor, rows: Tensor) -> Tensor:
    """Return patches[rows] for ascending rows; only a view if all are the same patch."""
    first, last = int(rows[0]), int(rows[-1])
    return patches[first : first + 1] if first == last else patches[rows]


def _combined(weights: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ReLU(sum_k w_k up(A_k)), (N, h, w); the sum commutes with up-sampling, the ReLU does not."""
    return up_sampled(torch.einsum("nk,nkuv->nuv", weights, maps), size).relu_()


def _size(patches: Tensor) -> tuple[int, int]:
    return patches.shape[2], patches.shape[3]


@register(
    "scorecam",
    family="P",
    paper="Wang et al., Score-CAM, CVPR 2020 workshop",
    passes="K forwards for K live channels",
)
@torch.no_grad()
def scorecam(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    activations: Tensor,
    same_as: Tensor,
    batch_size: int,
    subtract_baseline: bool = False,
    softmax: bool = False,
) -> Tensor:
    """Weigh channels by the score of the patch seen through them: ReLU(sum_k p(x M_k) up(A_k)).

    The mask M_k is channel k, up-sampled and stretched to 0..1; constant channels have no weight. The paper also
    subtracts the score on a baseline (here the mean colour) and takes a softmax over channels; its release does
    neither, and nor does the default.
    """
    alive, shared = _alive(activations), Shared.of(targets, same_as)
    weights = _scores(model, patches, activations, shared, batch_size)
    if subtract_baseline:
        weights = torch.where(alive, weights - _baseline(model, patches, targets)[:, None], 0)
    if softmax:
        weights = _softmax(weights, alive)
    return _combined(weights, activations, _size(patches))


@register("iscam", family="P", paper="Naidu et al., IS-CAM, 2020", passes="10 K forwards for K live channels")
@torch.no_grad()
def iscam(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    activations: Tensor,
    same_as: Tensor,
    batch_size: int,
    samples: int = 10,
    cumulative: bool = False,
    softmax: bool = False,
) -> Tensor:
    """Run Score-CAM with scores averaged on the path from black to the masked patch: mean_i p(x M_k i/N).

    N is `samples`. This follows a co-author's code. ``cumulative=True softmax=True`` is torch-cam's reading of the
    paper: steps i (i + 1) / 2N, which go beyond the patch, and a softmax over channels.
    """
    alive, shared = _alive(activations), Shared.of(targets, same_as)
    steps = [(i * (i + 1) / 2 if cumulative else i) / samples for i in range(1, samples + 1)]
    scores = [_scores(model, patches, activations, shared, batch_size, step) for step in steps]
    weights = torch.stack(scores).mean(0)
    return _combined(_softmax(weights, alive) if softmax else weights, activations, _size(patches))


def _scores(
    model: Model, patches: Tensor, activations: Tensor, shared: Shared, batch_size: int, share: float = 1.0
) -> Tensor:
    """Return the score of each row's patch through a share of each channel's mask, (N, K); 0 for a constant channel."""
    size, alive = _size(patches), _alive(activations)
    rows, channels, classes = _channels(alive, shared)

    def seen(part: slice) -> Tensor:
        masks = share * _masks(activations[rows[part], channels[part]], size)
        return _of_rows(patches, rows[part]) * masks[:, None].to(patches.dtype)

    return _weights(probabilities(model, seen, classes, batch_size), alive, shared)


def _channels(alive: Tensor, shared: Shared) -> tuple[Tensor, Tensor, Tensor]:
    """Return the row and channel of every mask, (M,), once for each patch, and the classes to score, (M, T)."""
    patches, channels = alive[shared.rows].nonzero(as_tuple=True)
    return shared.rows[patches], channels, shared.classes[patches]


def _weights(scores: Tensor, alive: Tensor, shared: Shared) -> Tensor:
    """Return scores (M, T), in the order of `_channels`, for every row and channel (N, K); 0 for a constant channel."""
    patches, targets = shared.classes.shape
    weights = scores.new_zeros(patches, alive.shape[1], targets)
    weights[alive[shared.rows]] = scores
    return weights.transpose(1, 2)[shared.own]


def _baseline(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Return the score of each target on the mean colour, (N,)."""
    return model.probabilities(model.logits(torch.zeros_like(patches[:1])))[0, targets]


def _softmax(weights: Tensor, alive: Tensor) -> Tensor:
    """Return the softmax over the channels that are not constant; the others are zero."""
    return weights.masked_fill(~alive, -torch.inf).softmax(1).nan_to_num_()


@register(
    "sscam",
    family="P",
    paper="Naidu et al., SS-CAM, 2020",
    passes="10 K forwards for K live channels",
)
@torch.no_grad()
def sscam(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    activations: Tensor,
    same_as: Tensor,
    batch_size: int,
    generators: list[torch.Generator],
    aggregate: Literal["mean", "max"] = "max",
    samples: int = 10,
    std: float = 0.1,
    noise: Literal["mask", "input"] = "mask",
    subtract_baseline: bool = False,
    softmax: bool = True,
) -> Tensor:
    """Run Score-CAM with noise: softmax over channels of the mean, or the largest, of the noisy scores.

    ``noise="mask"`` adds noise to the mask, as in eq. 15 of the paper, and `std` is in units of a mask's range, 0 to 1.
    ``noise="input"`` adds it to the masked patch, as in Algorithm 1 and a co-author's code, and `std` is in units of
    the patch's range, max - min. All channels of a patch get the same noise, so that they differ by what they show and
    not by luck. ``subtract_baseline=True`` subtracts the score on the mean colour, as the paper does; with the softmax
    it cancels. The co-author's code has neither softmax nor baseline.

    Measured on ImageNet images with boxes, SqueezeNet 1.1. Noise on the mask, energy-based pointing game, 16 images, 4
    samples, max: 59.0, 58.9, 58.7 and 58.7 % with `std` 0.1, 0.3, 1 and 2, so 0.1 is the default. Average precision of
    the boxes' pixels, 12 images, 1 sample, `std` 0.1: 85.4 with the softmax, 81.8 without it, 81.7 without it and with
    the baseline subtracted; with noise on the input 85.3, 83.4 and 81.4. Energy is higher without the softmax (69.1
    against 57.7), but sharpening alone raises it, and the order of pixels does not improve: the default is the paper's.
    """
    alive, shared = _alive(activations), Shared.of(targets, same_as)
    every = noisy_scores(model, patches, activations, shared, generators, batch_size, samples, std, noise)
    scores = torch.stack(list(every))
    weights = scores.amax(0) if aggregate == "max" else scores.mean(0)
    if subtract_baseline:
        weights = torch.where(alive, weights - _baseline(model, patches, targets)[:, None], 0)
    return _combined(_softmax(weights, alive) if softmax else weights, activations, _size(patches))


def noisy_scores(
    model: Model,
    patches: Tensor,
    activations: Tensor,
    shared: Shared,
    generators: list[torch.Generator],
    batch_size: int,
    samples: int,
    std: float,
    noise: Literal["mask", "input"],
) -> Iterator[Tensor]:
    """Yield, `samples` times, each row's scores through each channel and noise, (N, K); 0 for a constant channel."""
    size, alive = _size(patches), _alive(activations)
    rows, channels, classes = _channels(alive, shared)
    shape: tuple[int, ...] = size
    spread = torch.full((), std, device=patches.device)
    if noise == "input":
        shape = (3, *size)
        spread = std * (patches.amax((1, 2, 3)) - patches.amin((1, 2, 3))).float().view(-1, 1, 1, 1)
    for _ in range(samples):
        draws = spread * torch.stack([torch.randn(shape, generator=own, device=patches.device) for own in generators])

        def seen(part: slice, draws: Tensor = draws) -> Tensor:
            masks = _masks(activations[rows[part], channels[part]], size)[:, None]
            shown, noised = _of_rows(patches, rows[part]), _of_rows(draws, rows[part])
            if noise == "mask":
                return shown * (masks + noised[:, None]).to(patches.dtype)
            return shown * masks.to(patches.dtype) + noised.to(patches.dtype)

        yield _weights(probabilities(model, seen, classes, batch_size), alive, shared)


@register(
    "groupcam",
    family="P",
    paper="Zhang et al., Group-CAM, 2021",
    passes="33 forwards",
)
@torch.no_grad()
def groupcam(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    activations: Tensor,
    gradients: Tensor,
    batch_size: int,
    groups: int = 32,
) -> Tensor:
    """Weigh groups of channels by what each adds to a blurred patch: sum_g ReLU(p(x_g) - p(blur)) S_g.

    S_g is ReLU(sum of mean(g_k) A_k over the group), up-sampled. Stretched to 0..1 it is the mask M_g through which the
    patch is seen, x_g = x M_g + blur(x) (1 - M_g); the sum takes S_g itself, as the paper and its release do. Channels
    are split in order; if their number is not a multiple of `groups`, the first groups have one more.
    """
    size = _size(patches)
    weighted = gradients.mean((2, 3))[..., None, None] * activations
    parts = weighted.tensor_split(min(groups, weighted.shape[1]), dim=1)
    maps = torch.stack([part.sum(1) for part in parts], 1).relu_()
    alive = _alive(maps)
    rows, numbers = alive.nonzero(as_tuple=True)
    blur = blurred(patches, BLUR)

    def seen(part: slice) -> Tensor:
        masks = _masks(maps[rows[part], numbers[part]], size)
        return torch.lerp(_of_rows(blur, rows[part]), _of_rows(patches, rows[part]), masks[:, None].to(patches.dtype))

    base = probabilities(model, lambda part: blur[part], targets[:, None], batch_size)
    weights = torch.zeros_like(alive, dtype=torch.float32)
    weights[alive] = (probabilities(model, seen, targets[rows, None], batch_size) - base[rows])[:, 0].relu_()
    # Not up-sampled: the sum commutes with that.
    return torch.einsum("ng,nguv->nuv", weights, maps)


@register(
    "rise",
    family="P",
    paper="Petsiuk et al., RISE, BMVC 2018",
    passes="6000 forwards",
)
@torch.no_grad()
def rise(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    same_as: Tensor,
    batch_size: int,
    seed: int,
    masks: int = 6000,
    cells: int = 8,
    probability: Annotated[float, Above0(1, reached=False)] = 0.1,
) -> Tensor:
    """Average random masks, weighted by the score of the patch through each: sum p(x M) M / (N probability).

    All patches see the same masks.
    """
    result = torch.zeros(len(patches), *_size(patches), device=patches.device)
    groups = [(same_as == first).nonzero()[:, 0] for first in same_as.unique()]
    every = RandomMasks(masks, cells, probability, _size(patches), seed, patches.device)
    for start in range(0, masks, batch_size):
        part = every[start : start + batch_size]
        shown = part[:, None].to(patches.dtype)
        for rows in groups:
            scores = _scores_through(model, patches[rows[0]], shown, targets[rows])
            result[rows] += torch.einsum("mt,mhw->thw", scores, part)
    return result / (masks * probability)


def _scores_through(model: Model, patch: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
    """Return the probability of each target on the patch through each mask, (m, t)."""
    return probabilities(model, lambda part: patch * masks[part], targets.expand(len(masks), -1), len(masks))


class RandomMasks:
    """RISE's masks: grids of Bernoulli cells, enlarged bilinearly with a mirrored border, cropped at random.

    Parameters
    ----------
    count, cells : int
        Number of masks, and cells along a side of a grid.
    probability : float
        The probability that a cell is 1.
    size : tuple of int
        Height and width of a mask.
    seed : int
    device : torch.device
    """

    def __init__(
        self, count: int, cells: int, probability: float, size: tuple[int, int], seed: int, device: torch.device
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        grids = (torch.rand(count, cells, cells, generator=generator) < probability).float()
        steps = [ceil(length / cells) for length in size]
        self.shifts = torch.stack([torch.randint(step, (count,), generator=generator) for step in steps], 1)
        self.grids = grids.to(device)
        self.size = size
        # The enlarged grid is larger than the mask by a cell, which leaves room for the shift.
        self.rows, self.columns = (_mirrored_weights(cells, (cells + 1) * step, device) for step in steps)

    def __getitem__(self, part: slice) -> Tensor:
        """Return masks, (n, h, w)."""
        height, width = self.size
        large = self.rows @ self.grids[part] @ self.columns.T
        shifts = self.shifts[part].tolist()
        return torch.stack([mask[y : y + height, x : x + width] for mask, (y, x) in zip(large, shifts, strict=True)])


def _mirrored_weights(cells: int, length: int, device: torch.device) -> Tensor:
    """Return the (length, cells) matrix of bilinear weights; beyond its end a grid is mirrored (reflect 101)."""
    at = (torch.arange(length, dtype=torch.float64, device=device) + 0.5) * cells / length - 0.5
    first = at.floor().long()
    matrix = torch.zeros(length, cells, dtype=torch.float64, device=device)
    for tap, weight in ((first, 1 - (at - first)), (first + 1, at - first)):
        inside = (cells - 1) - ((cells - 1) - tap.abs()).abs()
        matrix.scatter_add_(1, inside[:, None], weight[:, None])
    return matrix.float()
