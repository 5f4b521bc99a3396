"""Resizing images to their scales and cutting the windows, on the device that holds the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.resampling import Rows, antialiased
from sess_ray.windows import Plan

STRIP_PIXELS = 1 << 20  # pixels of a large image that are held as floats at a time


class Normalizer:
    """Turns uint8 RGB pixels into the model's input range: (x / 255 - mean) / std.

    Parameters
    ----------
    mean, std : sequence of 3 floats
        In units of a 0..1 image, as the weights' metadata gives them.
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float], device: torch.device) -> None:
        self.scale = 1 / (255 * torch.tensor(list(std), dtype=torch.float64))
        self.shift = -torch.tensor(list(mean), dtype=torch.float64) * 255 * self.scale
        self.scale = self.scale.float().view(3, 1).to(device)
        self.shift = self.shift.float().view(3, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (n, 3, m) float32 for (n, 3, m) uint8."""
        return torch.addcmul(self.shift, pixels.float(), self.scale)


class Source:
    """An image to be resized to many sizes, normalised.

    Parameters
    ----------
    image : Tensor, (3, H, W) uint8
    normalize : Normalizer
    """

    def __init__(self, image: Tensor, normalize: Normalizer) -> None:
        self.device = image.device
        self.normalize = normalize
        _, self.rows, self.columns = image.shape
        # Columns first, as they are resampled, turned while they are bytes: of floats that takes five times as long.
        strips = image.split(max(1, STRIP_PIXELS // self.columns), 1)
        self._strips = [strip.permute(2, 0, 1).contiguous() for strip in strips]
        self._whole = normalize(self._strips[0]) if len(strips) == 1 else None

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (W, 3, rows) float32): a small image whole, made once; a large one a part at a time."""
        top = 0
        for strip in self._strips:
            yield top, self.normalize(strip) if self._whole is None else self._whole
            top += strip.shape[2]


def _resampled(lines: Tensor, at: tuple[Tensor, Tensor], part: slice = slice(None)) -> Tensor:
    """Resample (n, m) to (count, m), all columns alike: each result is a weighted sum of lines, contiguous memory."""
    positions, weights = at
    return F.embedding_bag(positions[part], lines, per_sample_weights=weights[part], mode="sum")


def resized(source: Source, height: int, width: int) -> Rows:
    """Resize an image: bilinear, half-pixel centres, antialias, as torchvision's `Resize` does it.

    The filter is separable. The width comes first, strip by strip, so that an image of any size needs little more
    memory than its result; the height follows row by row, as rows are asked for.

    Parameters
    ----------
    source : Source
    height, width : int
        Size of the result.

    Returns
    -------
    callable
        (top, bottom) to those rows of the result, (bottom - top, width, 3) float32.
    """
    device = source.device
    across, down = (_antialiased(*axis, device) for axis in ((source.columns, width), (source.rows, height)))
    wide = torch.empty(source.rows, width * 3, device=device)
    for top, strip in source.strips():
        rows = strip.shape[2]
        wide[top : top + rows] = _resampled(strip.flatten(1), across).view(width * 3, rows).T
    return lambda top, bottom: _resampled(wide, down, slice(top, bottom)).view(bottom - top, width, 3)


def _antialiased(length: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    positions, weights = antialiased(length, target, device)
    return positions, weights.float()


def cut(source: Source, plan: Plan, wanted: Sequence[bool] | None = None) -> Iterator[Tensor]:
    """Yield the windows of an image in the order of the plan, holding one scale at a time.

    Parameters
    ----------
    source : Source
    plan : Plan
    wanted : sequence of bool, optional
        Which windows; all by default.

    Yields
    ------
    Tensor, (3, window, window) float32
        A view: copy it before asking for the next.
    """
    side = plan.window
    marks = iter(wanted if wanted is not None else [True] * plan.num_patches)
    for scale in plan.scales:
        lines = [(y, [x for x in scale.xs if next(marks)]) for y in scale.ys]
        if not any(xs for _, xs in lines):
            continue
        rows = resized(source, scale.height, scale.width)
        for y, xs in lines:
            if xs:
                line = rows(y, y + side)
                for x in xs:
                    yield line[:, x : x + side].permute(2, 0, 1)
