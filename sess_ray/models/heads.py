"""Heads whose gradient is known.

Most classifiers pool before their last layer, so that everything after the tapped layer costs next to nothing and
autograd records it in the scoring pass. SqueezeNet classifies every position first, with a quarter of all its
multiplications; a gradient would cost them once more, although it is zero for all classes but one. So its gradient is
computed here by a formula; the values are those of autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sess_ray.models.targets import Targets


@dataclass(frozen=True)
class Head:
    """What is known about the head of a class of models.

    Attributes
    ----------
    container : str
        Name of the container whose output is the head's input.
    of_class : callable
        Takes (module, activations (N, K, u, v), classes (N,)); returns the gradient of each row's logit with respect to
        the activations.
    of_group : callable
        Takes (module, activations, classes (M,), shares (N, M)); returns the sum of the gradients of those classes'
        logits, each times its share.
    """

    container: str
    of_class: Callable[[nn.Module, Tensor, Tensor], Tensor]
    of_group: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]

    def gradient(
        self, module: nn.Module, activations: Tensor, logits: Tensor, targets: Tensor, model: Targets
    ) -> Tensor:
        """Return the gradient of each row's logit of its target, a class or a group, with respect to activations.

        With groups, this waits for a GPU, to learn which rows have one.
        """
        count = logits.shape[1]
        wanted = {target for target in targets.tolist() if target >= count} if model.groups else set()
        if not wanted:
            return self.of_class(module, activations, targets)
        found = self.of_class(module, activations, targets.clamp(max=count - 1))
        for target in wanted:
            rows = (targets == target).nonzero()[:, 0]
            members = torch.tensor(model.classes_of(target), device=logits.device)
            shares = model.shares(logits[rows], targets[rows])[:, members]
            found[rows] = self.of_group(module, activations[rows], members, shares.to(activations)).to(found)
        return found

    def pull(self, module: nn.Module, activations: Tensor, weights: Tensor) -> Tensor:
        """Return the gradient of each row's sum over classes of weight times logit, for weights (N, classes)."""
        classes = weights.any(0).nonzero()[:, 0]
        return self.of_group(module, activations, classes, weights[:, classes].to(activations))


def _classifier(module: nn.Module, classes: Tensor) -> tuple[Tensor, Tensor]:
    convolution = module.get_submodule("classifier.1")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    return convolution.weight[classes].flatten(1), convolution.bias[classes, None, None]


def _squeezenet(module: nn.Module, activations: Tensor, classes: Tensor) -> Tensor:
    """Return w / positions wherever w A + b > 0: a logit is the mean over positions of ReLU(w A + b)."""
    weights, bias = _classifier(module, classes)
    # Not by einsum, which takes ten times as long.
    scores = (weights[:, None] @ activations.flatten(2)).view(activations[:, 0].shape) + bias
    share = (scores > 0) / scores[0].numel()
    # Laid out like the activations of a model in channels_last.
    return (share[..., None] * weights[:, None, None]).permute(0, 3, 1, 2)


def _squeezenet_group(module: nn.Module, activations: Tensor, classes: Tensor, shares: Tensor) -> Tensor:
    """Return the sum over classes of share w / positions wherever w A + b > 0."""
    weights, bias = _classifier(module, classes)
    scores = torch.einsum("nkuv,mk->nmuv", activations, weights) + bias
    share = (scores > 0) * (shares / scores[0, 0].numel())[..., None, None]
    return torch.einsum("nmuv,mk->nuvk", share, weights).permute(0, 3, 1, 2)


# By the name of the model's class, since torchvision takes a second to import.
HEADS = {"torchvision.models.squeezenet.SqueezeNet": Head("features", _squeezenet, _squeezenet_group)}


def known_head(module: nn.Module, layer: str) -> Head | None:
    """Return the known head of `module` after `layer`, or None if autograd is as good."""
    head = HEADS.get(f"{type(module).__module__}.{type(module).__qualname__}")
    if head is None:
        return None
    *_, last = module.get_submodule(head.container).named_children()
    return head if layer in (head.container, f"{head.container}.{last[0]}") else None
