"""Heads whose gradient is known.

Most classifiers pool before their last layer, so that everything behind the tapped layer costs next to nothing and
autograd records it in the scoring pass. SqueezeNet classifies every position first: a quarter of all its
multiplications, once more for a gradient, though all classes but the wanted one have gradient zero. Its gradient is
written down here instead; its values are autograd's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

HeadGradient = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _squeezenet(module: nn.Module, activations: Tensor, classes: Tensor) -> Tensor:
    """Return w / positions wherever w A + b > 0: a logit is the mean over positions of ReLU(w A + b)."""
    convolution = module.get_submodule("classifier.1")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    weights = convolution.weight[classes].flatten(1)
    scores = torch.einsum("nkuv,nk->nuv", activations, weights) + convolution.bias[classes, None, None]
    share = (scores > 0) / scores[0].numel()
    # Laid out like the activations of a model in channels_last.
    return (share[..., None] * weights[:, None, None]).permute(0, 3, 1, 2)


# Model class, by name since torchvision takes a second to import -> (the container whose output the head takes,
# (module, activations (N, K, u, v), classes (N,)) -> gradient of each row's logit with respect to the activations).
HEADS: dict[str, tuple[str, HeadGradient]] = {"torchvision.models.squeezenet.SqueezeNet": ("features", _squeezenet)}


def head_gradient(module: nn.Module, layer: str) -> HeadGradient | None:
    """Return the gradient of the head of `module` behind `layer`, or None where autograd is as good."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    if name not in HEADS:
        return None
    container, gradient = HEADS[name]
    *_, last = module.get_submodule(container).named_children()
    return gradient if layer in (container, f"{container}.{last[0]}") else None
