"""Groups: targets that mean several classes, such as the 118 dogs of ImageNet.

`sess_ray.models.scores` defines a group's probability and logit: if classes exclude one another, the sum of their
probabilities and the logsumexp of their logits, whose gradient is the mean of the classes' gradients, each weighted by
the class's share of the group's probability.

Groups are numbered after the classes: with C classes, group k is target C + k.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def meaning(text: str, model: Targets) -> tuple[str, tuple[int, ...]]:
    """Return the name and the classes, ascending, that a target given as text means.

    Parameters
    ----------
    text : str
        A class by index, name or WordNet id; a node of WordNet by name or id, if the classes are ImageNet's; or a
        group, NAME=CLASSES, with classes, nodes and ranges of indices joined by plus signs: ``dog=151-268+275``.
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
    """Return the classes that a text names, in its order: classes, nodes and ranges of indices, joined by plus signs.

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
    first, last = (model.class_index(int(number)) for number in found.groups())
    if first > last:
        raise SessError(f"range {text.strip()} is empty: write the lower class first")
    return tuple(range(first, last + 1))
