"""WordNet ids of ImageNet's classes, where timm is installed to tell them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

_ID = re.compile(r"n\d{8}")


def classes_of(text: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the class that a WordNet id such as "n01440764" means among these; none where they are not ImageNet's."""
    if not _ID.fullmatch(text) or len(names) != 1000 or not names[0].lower().startswith("tench"):
        return ()
    return _ids().get(text, ())


@cache
def _ids() -> dict[str, tuple[int, ...]]:
    try:
        from timm.data import ImageNetInfo  # takes seconds: only where there is such an id
    except ImportError:
        return {}
    return {synset: (index,) for index, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}
