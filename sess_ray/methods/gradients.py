"""Family B: from gradients of the target's logit with respect to the pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sess_ray.methods.options import Above0
from sess_ray.methods.passes import input_gradients, noisy
from sess_ray.methods.registry import register
from sess_ray.models import Model

Rule = Literal["midpoint", "linspace"]


@register(
    "gradient",
    family="B",
    paper="Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014",
    passes="1 forward + backward",
)
def gradient(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Take the largest absolute gradient of the three colours: max_c |dy/dx_c|."""
    return input_gradients(model, patches, targets).abs().amax(1)


class GuidedBackprop(TorchFunctionMode):
    """While it is active, backward passes through rectifiers let only positive gradients through.

    A rectifier's own backward pass drops gradients where its input was negative; a hook on its output drops negative
    gradients. This works for modules and for functions, in place or not, and leaves the model unchanged.
    """

    RECTIFIERS: tuple[Callable[..., Any], ...] = (
        *(F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_, F.threshold),
        *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, Tensor.clamp_min, torch.clamp_min),
    )

    def __init__(self) -> None:
        super().__init__()
        self.rectifiers = 0

    def __torch_function__(
        self, function: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in self.RECTIFIERS:
            self.rectifiers += 1
            if result.requires_grad:
                result.register_hook(lambda gradient: gradient.clamp(min=0))
        return result


def _rectifies(model: Model) -> str | None:
    with torch.no_grad(), GuidedBackprop() as guided:
        model.module(model.probe())
    return None if guided.rectifiers else "it has no ReLU-like units to guide gradients through"


@register(
    "guided_backprop",
    family="B",
    paper="Springenberg et al., Striving for Simplicity, ICLR 2015 workshop",
    passes="1 forward + backward",
    check=_rectifies,
)
def guided_backprop(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    channels: Literal["sum", "max"] = "sum",
    percentile: Annotated[float, Above0(100)] = 99.0,
) -> Tensor:
    """Take gradients that are positive at every rectifier they pass: sum_c |.|, clipped at its 99th percentile.

    ``channels="max"`` takes the largest colour instead of their sum, and ``percentile=100`` clips nothing.
    """
    with GuidedBackprop():
        found = input_gradients(model, patches, targets).abs()
    found = found.sum(1) if channels == "sum" else found.amax(1)
    return found.minimum(_percentile(found.flatten(1), percentile).view(-1, 1, 1))


def _percentile(values: Tensor, percent: float) -> Tensor:
    """Return the percentile of each row, linear between neighbours; only the values above it are sorted."""
    count = values.shape[1]
    place = (count - 1) * min(percent, 100.0) / 100
    below = int(place)
    largest = values.topk(count - below, dim=1).values
    upper = largest[:, max(count - below - 2, 0)]
    return largest[:, -1].lerp(upper, place - below)


@register(
    "smoothgrad",
    family="B",
    paper="Smilkov et al., SmoothGrad, ICML 2017 workshop",
    passes="25 forwards + backwards",
    former={"squared": "average=squared"},
)
def smoothgrad(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    generators: list[torch.Generator],
    samples: int = 25,
    std: float = 0.15,
    average: Literal["signed", "absolute", "squared"] = "signed",
) -> Tensor:
    """Average gradients over noisy copies of the patch, then take the largest absolute value of the three colours.

    `std` is in units of the patch's range, max - min. ``average="signed"`` is the paper's: gradients whose sign
    changes from copy to copy cancel. ``"absolute"`` averages |dy/dx|, and ``"squared"`` its square, which is the
    default of the authors' later code (PAIR-code/saliency).
    """
    total = torch.zeros(patches.shape, device=patches.device)
    for copies in noisy(patches, std, generators, samples):
        found = input_gradients(model, copies, targets)
        total += {"signed": found, "absolute": found.abs(), "squared": found.square()}[average]
    return (total / samples).abs().amax(1)


@register(
    "integrated_gradients",
    family="B",
    paper="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017",
    passes="25 forwards + backwards",
)
def integrated_gradients(
    model: Model, patches: Tensor, targets: Tensor, *, steps: int = 25, rule: Rule = "midpoint"
) -> Tensor:
    """Average gradients on the path from the mean colour to the patch, times the path: sum_c |.|.

    ``rule="midpoint"`` takes the middles of `steps` equal parts of the path, ``"linspace"`` takes `steps` points from
    its start to its end, as PAIR-code/saliency does. Both converge with more steps; with the same number of steps the
    midpoint rule comes nearer to the integral.
    """
    return attributions(model, patches, targets, torch.zeros_like(patches), steps, rule).abs().sum(1)


def attributions(
    model: Model, patches: Tensor, targets: Tensor, baseline: Tensor, steps: int, rule: Rule = "midpoint"
) -> Tensor:
    """Return integrated gradients, (N, 3, h, w) float32.

    Their sum is the logit of the patch minus that of the baseline, up to the error of the rule.
    """
    way = patches - baseline
    total = torch.zeros(patches.shape, device=patches.device)
    for place in _places(steps, rule):
        total += input_gradients(model, baseline + way * place, targets)
    return total / steps * way


def _places(steps: int, rule: Rule) -> list[float]:
    """Return the positions on the path, 0 to 1, at which gradients are taken."""
    if rule == "midpoint":
        return [(step + 0.5) / steps for step in range(steps)]
    return [step / max(1, steps - 1) for step in range(steps)]
