"""Heads that can compute the logits of a few classes only.

Most classifiers pool before their last layer, so that everything behind the tapped layer costs next to nothing and
autograd records it in the scoring pass. SqueezeNet classifies every position first: a quarter of all its
multiplications, once more for a gradient, though all classes but the wanted ones have gradient zero. A restricted head
computes those alone; its values are the full head's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

Head = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _squeezenet(module: nn.Module, activations: Tensor, classes: Tensor) -> Tensor:
    convolution = module.get_submodule("classifier.1")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    # The convolution is 1 x 1; as a product over the last dimension it needs no reordering for a handful of classes.
    maps = F.linear(activations.permute(0, 2, 3, 1), convolution.weight[classes].flatten(1), convolution.bias[classes])
    return maps.relu_().mean((1, 2))


# Model class -> (the container whose output the head takes, (module, activations, classes (k,)) -> logits (N, k)).
HEADS: dict[type[nn.Module], tuple[str, Head]] = {torchvision.models.SqueezeNet: ("features", _squeezenet)}


def restricted_head(module: nn.Module, layer: str) -> Head | None:
    """Return the head of `module` for single classes behind `layer`, or None where autograd is as good."""
    if type(module) not in HEADS:
        return None
    container, head = HEADS[type(module)]
    *_, last = module.get_submodule(container).named_children()
    return head if layer in (container, f"{container}.{last[0]}") else None
