"""What an image processor of Hugging Face transformers does to pixels, measured.

Processors differ in what they call their settings and in what these mean: 0..255 or 0..1, means taken off once or
twice, BGR. So a processor is shown images of one colour each, and what comes out says it all, whatever its class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sess_ray.access import one_line
from sess_ray.errors import SessError
from sess_ray.windows import Size, sides

SIDES = (512, 640)  # of the images that a processor is shown
COLOURS = ((0, 0, 0), (255, 255, 255), (51, 102, 204))
EXACT = 1e-4  # by how much an output may differ from what the other two say, in units of a standard deviation


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a model's input.

    Attributes
    ----------
    size : tuple of 2 ints
        Height and width of the input.
    mean, std : tuple of 3 floats
        What RGB in 0..1 is normalised with.
    reverses : bool
        Whether the model's channels are blue, green, red.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverses: bool = False


def preprocessing(processor: Callable[..., Any], name: str, size: Size | None = None) -> Preprocessing:
    """Return what a processor does.

    Parameters
    ----------
    processor : BaseImageProcessor
    name : str
        What the model is called in messages.
    size : int or (int, int), optional
        Side of the model's input, or its height and width, for a processor that does not resize.

    Raises
    ------
    SessError
        If no size, mean and standard deviation say what it does.
    """
    shapes = {_output(processor, COLOURS[0], shown, name).shape[1:] for shown in SIDES}
    if len(shapes) > 1 and size is None:
        raise SessError(
            f"{name}: its image processor does not resize: set do_resize and size in preprocessor_config.json"
        )
    height, width = sides(size) if len(shapes) > 1 and size else shapes.pop()
    black, white, third = (_output(processor, colour, SIDES[0], name).mean((1, 2)) for colour in COLOURS)
    std = 1 / (white - black)
    mean = -black * std
    for reverses in (False, True):
        order = [2, 1, 0] if reverses else [0, 1, 2]
        expected = (torch.tensor(COLOURS[2]).double()[order] / 255 - mean) / std
        if (expected - third).abs().max() < EXACT:
            return _rounded(processor, (height, width), mean[order], std[order], reverses=reverses)
    raise SessError(f"{name}: its image processor does more than to resize and normalise: that is not supported")


def _output(processor: Callable[..., Any], colour: tuple[int, int, int], side: int, name: str) -> Tensor:
    """Return what a processor makes of an image of one colour, (3, h, w) float64."""
    try:
        found = processor(images=Image.new("RGB", (side, side), colour), return_tensors="pt")["pixel_values"]
    except Exception as error:
        raise SessError(f"{name}: its image processor fails: {one_line(error)}") from error
    if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[:2] != (1, 3):
        gives = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SessError(f"{name}: its image processor gives {gives}, not images of 3 channels: that is not supported")
    return found[0].double()


def _rounded(
    processor: Callable[..., Any], size: tuple[int, int], mean: Tensor, std: Tensor, *, reverses: bool
) -> Preprocessing:
    """Return what was measured; what the processor says where that is the same, since it is exact."""
    said = (getattr(processor, "image_mean", None), getattr(processor, "image_std", None))
    exact = [_exact(found, told) for found, told in zip((mean, std), said, strict=True)]
    return Preprocessing(size, exact[0], exact[1], reverses)


def _exact(found: Tensor, told: Any) -> tuple[float, ...]:
    if isinstance(told, list | tuple) and len(told) == 3 and (torch.tensor(told).double() - found).abs().max() < EXACT:
        return tuple(map(float, told))
    return tuple(round(value, 7) for value in found.tolist())
