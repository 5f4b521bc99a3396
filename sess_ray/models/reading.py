"""A module that is read in its own way: with steps behind it or in front of it, or with another layer in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from sess_ray.errors import SessError
from sess_ray.models.copies import copied
from sess_ray.models.layers import refused
from sess_ray.windows import Size, sides

Step = Callable[[Any], Any]

PROBES = 4  # images


class Reading(nn.Module):
    """A module with steps after it, which make logits of its output; and if need be one before, which makes its input.

    It shares the module's parts and has none of its own, so that layers and weights keep their names.
    """

    def __init__(self, module: nn.Module, *steps: Step, before: Step | None = None) -> None:
        super().__init__()
        for parts in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[parts] = module.__dict__[parts]
        self.read = (module,)  # in a tuple: no part of this one
        self.steps, self.before = steps, before
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        [module] = self.read
        if self.before:
            images = self.before(images)
        hooks = module._forward_hooks or module._forward_pre_hooks
        # Not a call where nothing hangs on it: torch.fx follows functions.
        found = module(images) if hooks else module.forward(images)
        for step in self.steps:
            found = step(found)
        return found


def probes(module: nn.Module, size: Size) -> Tensor:
    """Return images of noise of a size, (PROBES, 3, h, w), to see what a module gives."""
    weight = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(1))
    images = torch.randn(PROBES, 3, *sides(size), generator=torch.Generator().manual_seed(0))
    return (images * torch.tensor([0.0, 1.0, 1.0, 3.0])[:, None, None, None]).to(weight)


def run(module: nn.Module, images: Tensor) -> Any:
    """Return a module's output for images, with gradients recorded; `SessError` if it does not take them."""
    try:
        with torch.enable_grad():
            return module(images.clone().requires_grad_())
    except SessError:
        raise
    except Exception as error:
        raise SessError(refused((images.shape[2], images.shape[3]), error)) from error


def left_alone(module: nn.Module, images: Tensor) -> nn.Module:
    """Return a module that leaves the images as they are: itself, or behind a copy if it changes them in place."""
    seen = images.clone()
    with suppress(Exception), torch.no_grad():  # what it does not take is told later
        module(seen)
    return module if torch.equal(seen, images) else Reading(module, before=torch.clone)


def replaced(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Return a copy with another layer in the place of one."""
    if not name:
        return layer
    changed = copied(module)
    parent, _, last = name.rpartition(".")
    setattr(changed.get_submodule(parent), last, layer)
    return changed


def grey(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in grey, (N, 1, H, W), by ITU-R 601-2 as Pillow does it."""
    return 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]


def in_colour(module: nn.Module, images: Tensor) -> tuple[nn.Module, Any]:
    """Return a module that takes images of three channels, and its output for some.

    It is the module itself or, if that takes one channel, the module with `grey` before it.

    Raises
    ------
    SessError
        If it takes neither; the message is about three channels.
    """
    try:
        return module, run(module, images)
    except SessError:
        changed = Reading(module, before=grey)
        with suppress(SessError):
            return changed, run(changed, images)
        raise
