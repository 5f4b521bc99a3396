"""Values of methods' options, as a command line gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from sess_ray.errors import SessError

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def converted(name: str, kind: Any, value: object) -> object:
    """Return a value as its kind; `SessError` if it is none. Counts start at 1, other numbers at 0.

    >>> converted("xrai: scales", tuple[int, ...], "50,100"), converted("cam: relu", bool, "yes")
    ((50, 100), True)
    """
    what = f"{name}={value}"
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SessError(f"{what}: choose one of: {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is bool:
        if str(value).lower() not in WORDS:
            raise SessError(f"{what}: use true or false")
        return WORDS[str(value).lower()]
    if kind in (int, float):
        lowest = 1 if kind is int else 0
        try:
            number = kind(str(value))
        except ValueError:
            number = -1
        if not lowest <= number < float("inf"):
            raise SessError(f"{what}: use {'a whole number' if kind is int else 'a number'} from {lowest} on")
        return number
    if get_origin(kind) is tuple:
        parts = value if isinstance(value, Iterable) and not isinstance(value, str) else str(value).split(",")
        return tuple(converted(name, get_args(kind)[0], part) for part in parts)
    return str(value)
