"""Values of methods' options, as a command line gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from sess_ray.errors import SessError

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Above0:
    """Bounds of a number, in its annotation: above 0, and at most `most`, or below it if that is not `reached`."""

    most: float
    reached: bool = True

    def check(self, what: str, number: float) -> None:
        """Raise `SessError` if a number is outside."""
        if not 0 < number <= self.most or (number == self.most and not self.reached):
            raise SessError(f"{what}: use a number above 0 and {'up to' if self.reached else 'below'} {self.most:g}")


def converted(name: str, kind: Any, value: object) -> object:
    """Return a value as its kind; `SessError` if it is none. Counts start at 1, other numbers at 0.

    >>> converted("xrai: scales", tuple[int, ...], "50,100"), converted("cam: relu", bool, "yes")
    ((50, 100), True)
    """
    what = f"{name}={value}"
    if get_origin(kind) is Annotated:
        kind, *extra = get_args(kind)
        told = [bounds for bounds in extra if isinstance(bounds, Above0)]
        number: Any = converted(name, kind, value)
        for bounds in told:
            bounds.check(what, number)
        return number
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SessError(f"{what}: choose one of: {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is bool:
        if str(value).lower() not in WORDS:
            raise SessError(f"{what}: use true or false")
        return WORDS[str(value).lower()]
    if kind in (int, float):
        return _number(what, kind, value)
    if get_origin(kind) is tuple:
        parts = value if isinstance(value, Iterable) and not isinstance(value, str) else str(value).split(",")
        return tuple(converted(name, get_args(kind)[0], part) for part in parts)
    return str(value)


def _number(what: str, kind: type[int] | type[float], value: object) -> float:
    lowest = 1 if kind is int else 0
    try:
        number = kind(str(value))
    except ValueError:
        number = -1
    if not lowest <= number < float("inf"):
        raise SessError(f"{what}: use {'a whole number' if kind is int else 'a number'} from {lowest} on")
    return number
