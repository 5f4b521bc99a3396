"""Family R: extremal perturbation, the smooth mask of a given area that best preserves the target's logit."""

from __future__ import annotations

from math import ceil, prod
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.blur import blurred, gaussian_kernel
from sess_ray.methods.options import Above0
from sess_ray.methods.registry import register
from sess_ray.models import Model
from sess_ray.windows import Size, sides

LEVELS, BLUR = 8, 20.0  # of the pyramid, from the widest Gaussian to none
STEP, SIGMA = 7, 21  # pixels between the mask's parameters, and how far each reaches
COLDNESS = 20.0  # c of the smooth maximum
RATE, MOMENTUM = 0.01, 0.9
AREA_WEIGHT, AREA_GROWTH = 300.0, 1.0035
Border = Literal["replicate", "zero"]
Canvas = Literal["whole", "cropped"]
TIE = 2.0**-14  # mask values that differ by less count as equal


@register(
    "extremal_perturbation",
    family="R",
    reaches="pixels",
    paper="Fong et al., Extremal Perturbations, ICCV 2019",
    passes="3200 forwards + backwards",
)
def extremal_perturbation(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    batch_size: int,
    areas: tuple[Annotated[float, Above0(1)], ...] = (0.025, 0.05, 0.1, 0.2),
    steps: int = 800,
    border: Border = "replicate",
    canvas: Canvas = "whole",
    smooth: float = 0.0,
) -> Tensor:
    """Sum, over areas, the masks of that area that preserve the target's logit best; what a mask hides is blurred.

    Gradient descent with momentum raises the logit less the squared distance of the sorted mask from one that is 1 on
    the share `areas` and 0 elsewhere; every other step sees the patch mirrored.

    The benchmark of the authors' code (facebookresearch/TorchRay) is ``border="zero"``, ``canvas="cropped"`` and
    ``smooth=0.09``. `border` is what the blur assumes beyond the patch: its border pixels, or zeros, which are the mean
    colour. The areas are shares of a canvas of whole cells of 7 pixels, or of one cropped by 6 pixels along each axis.
    `smooth` is the sigma of a Gaussian over the summed masks, padded with zeros, as a share of the patch's shorter
    side.
    """
    together = max(1, batch_size // len(areas))
    found = torch.zeros(len(patches), *patches.shape[-2:], device=patches.device)
    for start in range(0, len(patches), together):
        part = slice(start, start + together)
        for first in range(0, len(areas), batch_size):
            some = areas[first : first + batch_size]
            found[part] += _masks(model, patches[part], targets[part], some, steps, border, canvas).sum(1)
    return smoothed(found, smooth * min(found.shape[1:]))


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps (N, h, w), padded with zeros, with a Gaussian of so many pixels; 0 leaves them unchanged."""
    return blurred(maps[:, None], _gaussian(sigma), "constant")[:, 0] if sigma else maps


def _gaussian(sigma: float) -> Tensor:
    return gaussian_kernel(2 * ceil(4 * sigma) + 1, sigma) if sigma else torch.ones(1)


def _masks(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    areas: tuple[float, ...],
    steps: int,
    border: Border = "replicate",
    canvas: Canvas = "whole",
) -> Tensor:
    """Return the masks (N, areas, h, w)."""
    n, count, size = len(patches), len(areas), (patches.shape[2], patches.shape[3])
    pyramid = blur_pyramid(patches, border)
    smooth = SmoothMask(size, patches.device, canvas)
    parameters = torch.ones(n * count, *smooth.cells, device=patches.device)
    velocity: Tensor | None = None
    wanted = _sorted_masks(areas, prod(smooth.canvas), patches.device).repeat(n, 1)
    classes = targets.repeat_interleave(count)
    weight = AREA_WEIGHT
    for step in range(steps):
        with torch.enable_grad():
            parameters.requires_grad_()
            drawn = smooth(parameters)
            seen = perturbed(pyramid, smooth.cropped(drawn).view(n, count, *size)).flatten(0, 1)
            if step % 2 == 0:
                seen = seen.flip(3)
            seen = seen.to(patches.dtype).contiguous(memory_format=torch.channels_last)
            reward = model.logit_of(model.module(seen).float(), classes).sum()
            excess = (ascending(drawn.flatten(1)) - wanted).square().mean(1).sum()
            (gradient,) = torch.autograd.grad(weight * excess - reward, parameters)
        velocity = gradient if velocity is None else velocity * MOMENTUM + gradient * (1 - MOMENTUM)
        parameters = (parameters.detach() - RATE * velocity).clamp_(0, 1)
        weight *= AREA_GROWTH
    return smooth.cropped(smooth(parameters)).view(n, count, *size).detach()


def _sorted_masks(areas: tuple[float, ...], pixels: int, device: torch.device) -> Tensor:
    """Return masks of 0 and 1 that have the areas, their values sorted, (areas, pixels)."""
    zeros = torch.tensor([int(pixels * (1 - area)) for area in areas], device=device)
    return (torch.arange(pixels, device=device) >= zeros[:, None]).float()


def ascending(values: Tensor) -> Tensor:
    """Sort rows; values that differ by less than `TIE` stay in the order of their positions.

    The masks start flat, so in a plain sort the last digit of a sum, and so the batch, would decide what becomes 0.
    """
    order = (values.detach() / TIE).round().sort(dim=1, stable=True).indices
    return values.gather(1, order)


def blur_pyramid(patches: Tensor, border: Border = "replicate") -> Tensor:
    """Return patches from most blurred to sharp, (N, levels, 3, h, w) float32."""
    sigmas = [BLUR * (1 - level / (LEVELS - 1)) for level in range(LEVELS)]
    beyond: Literal["replicate", "constant"] = "replicate" if border == "replicate" else "constant"
    return torch.stack([blurred(patches.float(), _gaussian(sigma), beyond) for sigma in sigmas], 1)


def perturbed(pyramid: Tensor, masks: Tensor) -> Tensor:
    """Return patches seen through masks (N, A, h, w) in 0..1, linear between two levels: (N, A, 3, h, w)."""
    n, count, *size = masks.shape
    places = masks * (LEVELS - 1)
    below = places.detach().floor().clamp(0, LEVELS - 2)
    index = below.long().view(n, count, 1, 1, *size).expand(-1, -1, -1, 3, -1, -1)
    levels = pyramid[:, None].expand(-1, count, -1, -1, -1, -1)
    low, high = (levels.gather(2, index + step)[:, :, 0] for step in (0, 1))
    return torch.lerp(low, high, (places - below)[:, :, None])


class _SmoothMaximum(torch.autograd.Function):
    """The sum of v softmax(c v) over v = near_j weight_pj, for every phase p of a cell.

    It handles one phase at a time, and computes it again in the backward pass: the products of all phases with all
    neighbours would be 81 times the canvas, and would take longer to write and read than to compute twice.
    """

    @staticmethod
    def forward(ctx: Any, near: Tensor, weights: Tensor) -> Tensor:
        """Return (M, phases, cells) for near (M, neighbours, cells) in 0..1 and weights (phases, neighbours)."""
        found = near.new_empty(len(near), len(weights), near.shape[2])
        sums = torch.empty_like(found)
        for phase, weight in enumerate(weights):
            values = near * (COLDNESS * weight)[:, None]
            powers = values.exp()  # at most e^20, so the largest need not be subtracted
            sums[:, phase] = powers.sum(1)
            found[:, phase] = values.mul_(powers).sum(1) / (COLDNESS * sums[:, phase])
        ctx.save_for_backward(near, weights, found, sums)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient: d(found)/d(v_j) = softmax_j (1 + c (v_j - found))."""
        near, weights, found, sums = ctx.saved_tensors
        shares, offsets = gradients[0] / sums, 1 - COLDNESS * found
        total = torch.zeros_like(near)
        for phase, weight in enumerate(weights):
            values = near * (COLDNESS * weight)[:, None]
            powers = values.exp()
            values.add_(offsets[:, phase, None]).mul_(powers).mul_(shares[:, phase, None])
            total.addcmul_(values, weight[:, None])
        return total, None


class SmoothMask:
    """Masks as a smooth maximum of bumps, one for each parameter of a coarse grid.

    The value at pixel p of a canvas, which is the patch with a margin, is the smooth maximum of m_j k(|p - p_j| / 21)
    over the parameters m_j near it, with k(z) = exp(-2 max(z - 0.5, 0)^2).

    Parameters
    ----------
    size : int or (int, int)
        Side of the patch in pixels, or height and width.
    device : torch.device
    canvas : {"whole", "cropped"}
        Whether the canvas ends with the last cell, or after that cell's first pixel, as in TorchRay.
    """

    def __init__(self, size: Size, device: torch.device, canvas: Canvas = "whole") -> None:
        self.height, self.width = sides(size)
        self.cells = ceil(self.height / STEP), ceil(self.width / STEP)
        self.margin = ceil(SIGMA / STEP)  # in cells
        self.radius = 1 + ceil(SIGMA / STEP)
        rows, columns = (STEP * (cells + 2 * self.margin) for cells in self.cells)
        self.whole = rows, columns
        cut = STEP - 1 if canvas == "cropped" else 0
        self.canvas = rows - cut, columns - cut
        # A pixel's place in its cell and its distance in cells to a neighbour give the weights: the same in every cell.
        phases = torch.arange(STEP, device=device)[:, None] - STEP * torch.arange(
            -self.radius, self.radius + 1, device=device
        )
        squares = phases.float().square()
        distances = (squares[:, None, :, None] + squares[None, :, None, :]).sqrt() / SIGMA
        weights = torch.exp(-2 * (distances - 0.5).clamp(min=0).square())
        self.weights = weights.view(STEP**2, -1)

    def __call__(self, parameters: Tensor) -> Tensor:
        """Return canvases (M, *canvas) for parameters (M, *cells) in 0..1."""
        reach = self.radius
        padded = F.pad(parameters[:, None], (self.margin + reach,) * 4)
        near = F.unfold(padded, 2 * reach + 1)  # (M, neighbours, cells of the canvas)
        flat: Tensor = _SmoothMaximum.apply(near, self.weights)  # (M, phases, cells of the canvas)
        rows, columns = self.canvas
        return F.fold(flat, self.whole, STEP, stride=STEP)[:, 0, :rows, :columns]

    def cropped(self, canvas: Tensor) -> Tensor:
        """Return the part of a canvas that belongs to the patch, (M, h, w)."""
        start = self.margin * STEP
        return canvas[:, start : start + self.height, start : start + self.width].clamp(0, 1)
