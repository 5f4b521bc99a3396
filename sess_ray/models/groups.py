"""Groups: targets that mean several classes, such as the 118 dogs of ImageNet.

A group's probability is the sum of its classes' probabilities. What takes the place of a class's logit is the logsumexp
of its classes' logits: it is to the group's probability what a logit is to a class's, the logarithm of it up to a
constant that all targets share. Its gradient is the mean of the classes' gradients, each weighted by the class's share
of the group's probability.

A group is a target behind the last class: with C classes, group k is target C + k.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sess_ray.errors import SessError
from sess_ray.models import wordnet

if TYPE_CHECKING:
    from sess_ray.models.targets import Targets

_RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


@dataclass(frozen=True)
class Group:
    """Several classes under one name.

    Attributes
    ----------
    name : str
    classes : tuple of int
        Their indices, at least two, ascending.
    """

    name: str
    classes: tuple[int, ...]


def probabilities(logits: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Return the probabilities of classes and groups, (N, C + groups) float32, for logits (N, C)."""
    found = logits.float().softmax(1)
    if not groups:
        return found
    return torch.cat([found, found @ _members(groups, logits.shape[1], logits.device).T.to(found)], 1)


def logit_of(logits: Tensor, targets: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Return the logit of each row's target, (N,); of a group the logsumexp of its classes', float32."""
    count = logits.shape[1]
    if not groups:
        return logits.gather(1, targets[:, None])[:, 0]
    own = logits.float().gather(1, targets.clamp(max=count - 1)[:, None])[:, 0]
    return torch.where(targets < count, own, _within(logits, targets, groups).logsumexp(1))


def shares(logits: Tensor, targets: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Return d(logit of the target)/d(logits), (N, C) float32: each class's share of the target's probability."""
    count = logits.shape[1]
    own = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, targets.clamp(max=count - 1)[:, None], 1)
    if not groups:
        return own
    return torch.where((targets < count)[:, None], own, _within(logits, targets, groups).softmax(1))


def _within(logits: Tensor, targets: Tensor, groups: tuple[Group, ...]) -> Tensor:
    """Return logits, those outside of the row's group minus infinity; of rows without a group, the first one's."""
    members = _members(groups, logits.shape[1], logits.device)[(targets - logits.shape[1]).clamp(min=0)]
    return logits.float().masked_fill(~members, -torch.inf)


@lru_cache(maxsize=16)
def _members(groups: tuple[Group, ...], num_classes: int, device: torch.device) -> Tensor:
    """Return which classes each group has, (groups, C) bool."""
    members = torch.zeros(len(groups), num_classes, dtype=torch.bool)
    for row, group in zip(members, groups, strict=True):
        row[list(group.classes)] = True
    return members.to(device)


def meaning(text: str, model: Targets) -> tuple[str, tuple[int, ...]]:
    """Return the name and the classes, ascending, that a target in words means.

    Parameters
    ----------
    text : str
        A class by index, name or WordNet id; a node of WordNet by name or id, where the classes are ImageNet's; or a
        group, NAME=CLASSES, with classes, nodes and ranges of indices between plus signs: ``dog=151-268+275``.
    model : Model

    Raises
    ------
    SessError
        If there is no such class or node, or there are several.

    Examples
    --------
    >>> from sess_ray import load_model
    >>> model = load_model("squeezenet1_1", weights="random")
    >>> meaning("cat=281-283+tiger", model), meaning("bear", model)
    (('cat', (281, 282, 283, 292)), ('bear', (294, 295, 296, 297)))
    """
    name, equals, classes = text.partition("=")
    if equals and not model.knows(text):
        if not name.strip() or not classes.strip():
            raise SessError(f"target {text!r}: write NAME=CLASSES, such as dog=151-268")
        return name.strip(), tuple(sorted(set(members(classes, model))))
    if _RANGE.fullmatch(text):
        raise SessError(f"target {text!r}: give these classes a name, such as dog={text.strip()}")
    if not model.knows(text):
        nodes = wordnet.nodes_of(text.strip().lower(), model.classes)
        if len(nodes) > 1:
            listed = " or ".join(f"{node.wnid} ({len(node.classes)} classes)" for node in nodes)
            raise SessError(f"WordNet has {len(nodes)} nodes named {text.strip()!r}: use an id, {listed}")
        if nodes:
            return text.strip(), nodes[0].classes
    index = model.class_index(text)
    return model.class_name(index), (index,)


def members(text: str, model: Targets) -> tuple[int, ...]:
    """Return the classes, in their order, that are named between plus signs: classes, nodes, ranges of indices.

    Raises
    ------
    SessError
        As `meaning`.
    """
    if "+" in text and not model.knows(text):
        return tuple(dict.fromkeys(index for part in text.split("+") for index in members(part, model)))
    found = _RANGE.fullmatch(text)
    if not found:
        return meaning(text, model)[1]
    first, last = (model.class_index(number) for number in found.groups())
    if first > last:
        raise SessError(f"range {text.strip()} is empty: write the lower class first")
    return tuple(range(first, last + 1))
