"""Resizing images to their scales and cutting the windows, on the device that holds the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.resampling import taps
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
        self.scale = self.scale.float().view(3, 1, 1).to(device)
        self.shift = self.shift.float().view(3, 1, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (3, H, W) float32 for (3, H, W) uint8."""
        return torch.addcmul(self.shift, pixels.float(), self.scale)


class Source:
    """An image to be resized to many sizes, normalised.

    Parameters
    ----------
    image : Tensor, (3, H, W) uint8
    normalize : Normalizer
    """

    def __init__(self, image: Tensor, normalize: Normalizer) -> None:
        self.image = image
        self.normalize = normalize
        _, self.rows, self.columns = image.shape
        self.strip = max(1, STRIP_PIXELS // self.columns)
        self._whole = self._part(0) if self.rows <= self.strip else None

    def _part(self, top: int) -> Tensor:
        return self.normalize(self.image[:, top : top + self.strip]).permute(2, 1, 0).contiguous()

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (W, rows, 3) float32): a small image whole, made once; a large one a part at a time."""
        for top in range(0, self.rows, self.strip):
            yield top, self._part(top) if self._whole is None else self._whole


Rows = Callable[[int, int], Tensor]


def _antialiased(lines: Tensor, count: int) -> Tensor:
    """Resample (n, m) to (count, m); all columns alike, so that the kernel runs along contiguous memory."""
    return F.interpolate(lines[None, None], size=(count, lines.shape[1]), mode="bilinear", antialias=True)[0, 0]


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
    wide = torch.empty(source.rows, width, 3, device=source.image.device)
    for top, strip in source.strips():
        rows = strip.shape[1]
        wide[top : top + rows] = _antialiased(strip.flatten(1), width).view(width, rows, 3).permute(1, 0, 2)
    wide = wide.view(source.rows, width * 3)
    if height < source.rows:
        tall = _antialiased(wide, height).view(height, width, 3)
        return lambda top, bottom: tall[top:bottom]
    at = taps(source.rows, height, wide.device)  # enlarged, antialias changes nothing: two taps do
    fraction = at.fraction.float()[:, None]

    def enlarged(top: int, bottom: int) -> Tensor:
        part = slice(top, bottom)
        first, second = wide.index_select(0, at.first[part]), wide.index_select(0, at.second[part])
        return first.lerp_(second, fraction[part]).view(bottom - top, width, 3)

    return enlarged


def cut(source: Source, plan: Plan) -> Iterator[Tensor]:
    """Yield the windows of an image in the order of the plan, holding one scale at a time.

    Parameters
    ----------
    source : Source
    plan : Plan

    Yields
    ------
    Tensor, (3, window, window) float32
        A view: copy it before asking for the next.
    """
    side = plan.window
    for scale in plan.scales:
        rows = resized(source, scale.height, scale.width)
        for y in scale.ys:
            line = rows(y, y + side)
            for x in scale.xs:
                yield line[:, x : x + side].permute(2, 0, 1)
