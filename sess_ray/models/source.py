"""Where a classifier comes from: what each library that brings some says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sess_ray.models.scores import Activation
from sess_ray.windows import Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """How to build an architecture, and what its metadata say.

    Attributes
    ----------
    build : callable
        ("pretrained" or "empty", number of classes or None) to a module.
    input_size : int or (int, int)
        Side, or height and width.
    mean, std : tuple of 3 floats
        What RGB in 0..1 is normalised with.
    classes : tuple of str
        Names, with synonyms behind commas; empty where nobody knows them.
    activation : {"softmax", "sigmoid", "none"} or None
        None where the module is asked.
    verbatim : bool
        Whether names are prompts, whose commas separate nothing.
    known : bool
        Whether it is a library's, whose modules give logits.
    """

    build: Callable[[str, int | None], nn.Module]
    input_size: Size = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classes: tuple[str, ...] = ()
    activation: Activation | None = None
    verbatim: bool = False
    known: bool = True
