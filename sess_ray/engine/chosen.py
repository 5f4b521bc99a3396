"""Targets that the model itself chooses for each image: topK, and p>T. Workers without torch use this, too."""

from __future__ import annotations

import re

from sess_ray.errors import SessError

_ABOVE = re.compile(r"p\s*>\s*(\S+)")


def is_top(spec: str) -> bool:
    """Say whether a target reads top1, top5, ..."""
    return spec.startswith("top") and spec[3:].isdecimal() and int(spec[3:]) > 0


def threshold(spec: object) -> float | None:
    """Return the probability above which classes are explained, if a target reads p>0.5; else None.

    Raises
    ------
    SessError
        If what follows is not a probability below 1.

    Examples
    --------
    >>> threshold("p>0.5"), threshold("p > 0.25"), threshold("top1")
    (0.5, 0.25, None)
    """
    found = _ABOVE.fullmatch(spec.strip()) if isinstance(spec, str) else None
    if not found:
        return None
    try:
        value = float(found[1])
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise SessError(f"targets {spec!r}: use a probability from 0 to below 1, such as p>0.5")
    return value


def is_chosen(spec: str) -> bool:
    """Say whether the model itself chooses what is explained in an image: topK, or p>T."""
    return is_top(spec) or threshold(spec) is not None
