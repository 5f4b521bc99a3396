"""Family R: Augmented Grad-CAM, one fine map from many coarse maps of a rotated and shifted patch."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.methods.passes import up_sampled
from sess_ray.methods.registry import get, register
from sess_ray.models import Model
from sess_ray.windows import Size, sides

ANGLE, SHIFT = 0.5, 30.0  # largest rotation in radians, largest shift in pixels
RATE = 1e-3  # Adam's
POINTS = 4  # at which a coarse pixel is sampled, along a side


@register(
    "augmented_gradcam",
    family="R",
    reaches="layer",
    paper="Morbidelli et al., Augmented Grad-CAM, ICASSP 2020",
    passes="100 forwards + head backwards",
)
def augmented_gradcam(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    generators: list[torch.Generator],
    batch_size: int,
    aggregation: Literal["super_resolution", "mean", "max"] = "super_resolution",
    samples: int = 100,
    steps: int = 200,
    tv: float = 0.2,
    energy: float = 0.01,
) -> Tensor:
    """Find the fine map h whose rotated, shifted and reduced copies match the Grad-CAMs of the patch treated alike.

    Adam minimises sum_i |D T_i h - g_i|^2 + tv |dh|_1 + energy |h|^2 from zero. Each Grad-CAM g_i is divided by its
    own largest value, T_i rotates by up to 0.5 rad and shifts by up to 30 pixels, T_0 does nothing, and D takes means
    of cells. ``aggregation="mean"`` and ``"max"`` combine the Grad-CAMs directly, enlarged and rotated back.
    """
    size = patches.shape[2], patches.shape[3]
    draws = torch.stack([torch.rand(samples, 3, generator=own, device=patches.device) for own in generators])
    draws = draws * 2 - 1
    draws[:, 0] = 0
    angles, shifts = draws[..., 0] * ANGLE, draws[..., 1:] * SHIFT
    pixels = _pixels(size, patches.device)
    maps = []
    # One patch at a time, in the model too: a model's sums differ in the last digit with what else is in the batch, and
    # the sign of dh and Adam would turn that into a hundredth of the map.
    for one in range(len(patches)):
        own = slice(one, one + 1)
        cams = _coarse(model, patches[own], targets[own], angles[own], shifts[own], batch_size)
        if aggregation == "super_resolution":
            largest = cams.amax((2, 3), keepdim=True)
            cams = cams / largest.where(largest > 0, 1)
            maps.append(_super_resolved(cams, angles[own], shifts[own], size, steps, tv, energy)[0])
            continue
        grid = _normalised(_turned_back(pixels, angles[one], shifts[one], size), size)
        back = F.grid_sample(up_sampled(cams[0], size)[:, None], grid, align_corners=False)[:, 0]
        maps.append(back.mean(0) if aggregation == "mean" else back.amax(0))
    return torch.stack(maps)


def _pixels(size: Size, device: torch.device) -> Tensor:
    """Return the (x, y) of every pixel, (h, w, 2)."""
    axes = (torch.arange(side, dtype=torch.float32, device=device) for side in sides(size))
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y], -1)


def _centre(points: Tensor, size: Size) -> Tensor:
    height, width = sides(size)
    return points.new_tensor([(width - 1) / 2, (height - 1) / 2])


def _rotation(angles: Tensor) -> Tensor:
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)


def _turned(points: Tensor, angles: Tensor, shifts: Tensor, size: Size) -> Tensor:
    """Return where T reads for points (a, b, 2) of its result, (n, a, b, 2): rotated by angles (n,), then shifted."""
    centre = _centre(points, size)
    moved = points - shifts[:, None, None] - centre
    return torch.einsum("nij,nabj->nabi", _rotation(-angles), moved) + centre


def _turned_back(points: Tensor, angles: Tensor, shifts: Tensor, size: Size) -> Tensor:
    """Return where the inverse of T reads."""
    centre = _centre(points, size)
    return torch.einsum("nij,abj->nabi", _rotation(angles), points - centre) + centre + shifts[:, None, None]


def _normalised(points: Tensor, size: Size) -> Tensor:
    """Return pixel coordinates in grid_sample's units, align_corners=False."""
    height, width = sides(size)
    return (points + 0.5) * points.new_tensor([2 / width, 2 / height]) - 1


def _coarse(model: Model, patches: Tensor, targets: Tensor, angles: Tensor, shifts: Tensor, batch_size: int) -> Tensor:
    """Return the Grad-CAM of every rotated copy, (N, samples, u, v)."""
    n, samples = angles.shape
    size = patches.shape[2], patches.shape[3]
    pixels = _pixels(size, patches.device)
    rows = torch.arange(n, device=patches.device).repeat_interleave(samples)
    flat_angles, flat_shifts = angles.flatten(), shifts.flatten(0, 1)
    cams = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        grid = _normalised(_turned(pixels, flat_angles[part], flat_shifts[part], size), size)
        copies = F.grid_sample(patches[rows[part]].float(), grid, align_corners=False).to(patches.dtype)
        tap = model.tap(copies.contiguous(memory_format=torch.channels_last))
        gradients = tap.gradients(targets[rows[part]])
        cams.append(get("gradcam").function(tap.activations, gradients))
    found = torch.cat(cams)
    return found.view(n, samples, *found.shape[1:])


def _super_resolved(
    cams: Tensor, angles: Tensor, shifts: Tensor, size: tuple[int, int], steps: int, tv: float, energy: float
) -> Tensor:
    reduce = Reduction((cams.shape[-2], cams.shape[-1]), angles, shifts, size)
    fine = torch.zeros(len(cams), *size, device=cams.device, requires_grad=True)
    optimiser = torch.optim.Adam([fine], lr=RATE)
    with torch.enable_grad():
        for _ in range(steps):
            loss = (reduce(fine) - cams).square().sum() + energy * fine.square().sum()
            loss = loss + tv * (fine.diff(dim=1).abs().sum() + fine.diff(dim=2).abs().sum())
            (fine.grad,) = torch.autograd.grad(loss, fine)
            optimiser.step()
    return fine.detach()


class Reduction:
    """D T_i: rotated and shifted copies of a fine map, reduced to the size of the coarse ones.

    A coarse pixel is the mean of its cell, sampled at 4 x 4 points. The authors' code reads only each cell's first
    pixel (as TensorFlow 1 resizes 224 pixels to 14), so that only the rotated copies see the pixels between.

    Parameters
    ----------
    coarse : tuple of int
        (u, v) of the coarse maps.
    angles, shifts : Tensor, (N, samples) and (N, samples, 2)
    fine : int or (int, int)
        Side of the fine map in pixels, or height and width.
    """

    def __init__(self, coarse: tuple[int, int], angles: Tensor, shifts: Tensor, fine: Size) -> None:
        y, x = (
            (torch.arange(POINTS * n, device=angles.device) + 0.5) * (side / (POINTS * n)) - 0.5
            for n, side in zip(coarse, sides(fine), strict=True)
        )
        points = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
        grid = _normalised(_turned(points, angles.flatten(), shifts.flatten(0, 1), fine), fine)
        self.grid = grid.view(len(angles), -1, len(x), 2)
        self.shape = (*angles.shape, coarse[0], POINTS, coarse[1], POINTS)

    def __call__(self, fine: Tensor) -> Tensor:
        """Return (N, samples, u, v) for fine maps (N, h, w)."""
        return F.grid_sample(fine[:, None], self.grid, align_corners=False).view(self.shape).mean((3, 5))
