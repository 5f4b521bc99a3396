"""From logits to probabilities of classes and of groups; no other module does this.

| activation | classes                                       | the probability of a group                  |
|------------|-----------------------------------------------|---------------------------------------------|
| softmax    | exclude one another                           | that it is one of them: the sum             |
| sigmoid    | are labels, each of which may be present      | that any is present: 1 - prod(1 - p)        |
| none       | have outputs that are probabilities already   | the largest: how they relate is not known   |

Gradients are those of a target's logit: for a class the model's own logit, for a group the number that the activation
would map to the group's probability. Under a softmax that is the logsumexp of its classes' logits, up to a
constant that all targets share; under a sigmoid log(P / (1 - P)); under none the largest. A group of one class would
have that class's logit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from sess_ray.models.groups import Group

Activation = Literal["softmax", "sigmoid", "none"]
SURE = 1e-6  # a probability below which log(1 - p) is -p in float32


def probabilities(logits: Tensor, groups: tuple[Group, ...], activation: Activation) -> Tensor:
    """Return the probabilities of classes and groups, (N, C + groups) float32, for logits (N, C)."""
    values = logits.float()
    found = {"softmax": lambda: values.softmax(1), "sigmoid": values.sigmoid, "none": lambda: values}[activation]()
    if not groups:
        return found
    if activation == "none":
        return torch.cat([found, *(found[:, list(group.classes)].amax(1, keepdim=True) for group in groups)], 1)
    members = _members(groups, logits.shape[1], logits.device).T.to(found)
    together = found @ members if activation == "softmax" else -torch.expm1(-F.softplus(values) @ members)
    return torch.cat([found, together], 1)


def logit_of(logits: Tensor, targets: Tensor, groups: tuple[Group, ...], activation: Activation) -> Tensor:
    """Return the logit of each row's target, (N,), for targets (N,) int64; for groups in float32."""
    count = logits.shape[1]
    if not groups:
        return logits.gather(1, targets[:, None])[:, 0]
    own = logits.float().gather(1, targets.clamp(max=count - 1)[:, None])[:, 0]
    inside = _inside(logits, targets, groups)
    if activation == "sigmoid":
        together = torch.stack(_any(logits.float(), inside)).sum(0)
    else:
        within = logits.float().masked_fill(~inside, -torch.inf)
        together = within.logsumexp(1) if activation == "softmax" else within.amax(1)
    return torch.where(targets < count, own, together)


def log_probability_of(logits: Tensor, targets: Tensor, groups: tuple[Group, ...], activation: Activation) -> Tensor:
    """Return the logarithm of the probability of each row's target, (N,) float32; finite slopes near 0."""
    own = logit_of(logits, targets, groups, activation).float()
    if activation == "softmax":
        return own - logits.float().logsumexp(1)
    return F.logsigmoid(own) if activation == "sigmoid" else own.clamp(min=SURE).log()


def shares(logits: Tensor, targets: Tensor, groups: tuple[Group, ...], activation: Activation) -> Tensor:
    """Return d(logit of the target)/d(logits), (N, C) float32: 1 for a class.

    Under a softmax the shares of a group's classes are proportional to their probabilities. Under a sigmoid each share
    is the class's probability divided by the group's; they sum to more than 1 if several classes are present.
    """
    count = logits.shape[1]
    own = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, targets.clamp(max=count - 1)[:, None], 1)
    if not groups:
        return own
    values, inside = logits.float(), _inside(logits, targets, groups)
    if activation == "sigmoid":
        log_probability, _ = _any(values, inside)
        together = (F.logsigmoid(values) - log_probability[:, None]).masked_fill(~inside, -torch.inf).exp()
    else:
        within = values.masked_fill(~inside, -torch.inf)
        together = within.softmax(1) if activation == "softmax" else F.one_hot(within.argmax(1), count).float()
    return torch.where((targets < count)[:, None], own, together)


def _any(logits: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return log P and -log(1 - P), (N,), P the probability that any of a row's labels is present, also if tiny."""
    none = (F.softplus(logits) * inside).sum(1)
    rare = torch.where(logits < -15, logits, F.softplus(logits.clamp(min=-16)).log())  # log softplus
    rare = rare.masked_fill(~inside, -torch.inf).logsumexp(1)
    return torch.where(none < SURE, rare, (-torch.expm1(-none.clamp(min=SURE))).log()), none


def _inside(logits: Tensor, targets: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Return which classes each row's group has, (N, C) bool; for rows without a group, those of the first group."""
    return _members(groups, logits.shape[1], logits.device)[(targets - logits.shape[1]).clamp(min=0)]


@lru_cache(maxsize=16)
def _members(groups: tuple[Group, ...], num_classes: int, device: torch.device) -> Tensor:
    """Return which classes each group has, (groups, C) bool."""
    members = torch.zeros(len(groups), num_classes, dtype=torch.bool)
    for row, group in zip(members, groups, strict=True):
        row[list(group.classes)] = True
    return members.to(device)
