"""WordNet's view of ImageNet's classes: their ids, where timm is installed to tell them, and the nodes above them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ID = re.compile(r"n\d{8}")
_TABLE = Path(__file__).with_name("wordnet.tsv")  # made by studies/wordnet_nodes.py


@dataclass(frozen=True)
class Node:
    """A node of WordNet 3.0 with several of ImageNet's classes.

    Attributes
    ----------
    wnid : str
        Such as "n02084071".
    names : tuple of str
        As WordNet writes them: "dog", "domestic dog", "Canis familiaris".
    classes : tuple of int
        Indices of all classes that are a kind of it, ascending.
    """

    wnid: str
    names: tuple[str, ...]
    classes: tuple[int, ...]


def classes_of(text: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the class that a WordNet id such as "n01440764" means among these; none where they are not ImageNet's."""
    if not _ID.fullmatch(text) or not _are_imagenets(names):
        return ()
    return _ids().get(text, ())


def nodes_of(text: str, names: Sequence[str]) -> tuple[Node, ...]:
    """Return the nodes of an id or of a name in lower case; none where these classes are not ImageNet's.

    >>> nodes_of("dog", ["tench"] * 1000)[0].classes[-1], [node.wnid for node in nodes_of("car", ["tench"] * 1000)]
    (268, ['n02958343', 'n02959942'])
    """
    return _nodes().get(text, ()) if _are_imagenets(names) else ()


def _are_imagenets(names: Sequence[str]) -> bool:
    return len(names) == 1000 and names[0].lower().startswith("tench")


@cache
def _nodes() -> dict[str, tuple[Node, ...]]:
    """Return the nodes of each id and of each name in lower case."""
    found: dict[str, tuple[Node, ...]] = {}
    for line in _TABLE.read_text().splitlines():
        if not line.startswith("#"):
            wnid, words, members = line.split("\t")
            ranges = (tuple(map(int, part.split("-"))) for part in members.split("+"))
            classes = tuple(number for ends in ranges for number in range(ends[0], ends[-1] + 1))
            node = Node(wnid, tuple(words.split(", ")), classes)
            for key in (wnid, *{name.lower() for name in node.names}):
                found[key] = (*found.get(key, ()), node)
    return found


@cache
def _ids() -> dict[str, tuple[int, ...]]:
    try:
        from timm.data import ImageNetInfo  # takes seconds: only where there is such an id
    except ImportError:
        return {}
    return {synset: (index,) for index, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}
