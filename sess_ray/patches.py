"""Resizing images to their scales and cutting the windows, on the device that holds the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

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
        self._whole = normalize(image) if self.rows <= self.strip else None

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (3, rows, W) float32): a small image whole, made once; a large one a part at a time."""
        if self._whole is not None:
            yield 0, self._whole
            return
        for top in range(0, self.rows, self.strip):
            yield top, self.normalize(self.image[:, top : top + self.strip])


def resize(source: Source, height: int, width: int) -> Tensor:
    """Resize an image: bilinear, half-pixel centres, antialias, as torchvision's `Resize`.

    The filter is separable, so the width is resized first, strip by strip, and laid out with the channels last; the
    height then follows as one pass over contiguous rows. The values are those of the two-dimensional call, an
    image of any size needs little more memory than its result, and windows are cut from it in whole rows.

    Parameters
    ----------
    source : Source
    height, width : int
        Size of the result.

    Returns
    -------
    Tensor, (height, width, 3) float32
    """
    wide = torch.empty(source.rows, width, 3, device=source.image.device)
    for top, strip in source.strips():
        part = F.interpolate(strip[None], size=(strip.shape[1], width), mode="bilinear", antialias=True)[0]
        wide[top : top + strip.shape[1]] = part.permute(1, 2, 0)
    tall = F.interpolate(
        wide.view(1, 1, source.rows, width * 3), size=(height, width * 3), mode="bilinear", antialias=True
    )
    return tall.view(height, width, 3)


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
        scaled = resize(source, scale.height, scale.width)
        for y in scale.ys:
            for x in scale.xs:
                yield scaled[y : y + side, x : x + side].permute(2, 0, 1)
