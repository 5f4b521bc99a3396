"""Calls of functions, in this process or as Ray's tasks: what one returns, another may take, as no graph has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sess_ray.access import Access, use
from sess_ray.errors import RunError, SessError


class Calls(Protocol):
    """Calls functions somewhere; what they return stays there, and `got` brings it here.

    Attributes
    ----------
    ahead : int
        How many lots of calls may run before what they return is used.
    lanes : int
        How many parts work is cut into, at most.
    """

    ahead: int
    lanes: int

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns, or a reference to it."""
        ...

    def split(self, parts: int, function: Callable[..., Sequence[Any]], *args: Any) -> list[Any]:
        """Return so many results of a function, or references to them."""
        ...

    def wait(self, results: Sequence[Any]) -> None:
        """Return when all are there: whoever is given references before that would wait on a core of its own."""
        ...


class Here:
    """Calls functions in this process, one after the other."""

    ahead, lanes = 0, 1

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def split(self, parts: int, function: Callable[..., Sequence[Any]], *args: Any) -> list[Any]:
        return list(function(*args))[:parts]

    def wait(self, results: Sequence[Any]) -> None:
        """Return at once."""


class Tasks:
    """Calls functions as tasks of Ray's, of a core each. Ray must be connected.

    Parameters
    ----------
    access : Access
        How they open URLs.
    """

    ahead, lanes = 1, 4096

    def __init__(self, access: Access) -> None:
        import ray

        self._access = access
        self._whole = ray.remote(_called)
        self._parts = ray.remote(_split)

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._whole.remote(self._access, function, args)

    def split(self, parts: int, function: Callable[..., Sequence[Any]], *args: Any) -> list[Any]:
        found = self._parts.options(num_returns=parts).remote(self._access, parts, function, args)
        return [found] if parts == 1 else list(found)

    def wait(self, results: Sequence[Any]) -> None:
        import ray

        if results:
            ray.wait(list(results), num_returns=len(results), fetch_local=False)


def _called(access: Access, function: Callable[..., Any], args: Sequence[Any]) -> Any:
    use(access)
    return function(*args)


def _split(access: Access, parts: int, function: Callable[..., Sequence[Any]], args: Sequence[Any]) -> Any:
    found = tuple(_called(access, function, args))
    return found[0] if parts == 1 else found


def got(result: Any) -> Any:
    """Return what a call has returned; an error that is told in a line is raised as it was."""
    import ray
    from ray.exceptions import RayTaskError

    if not isinstance(result, ray.ObjectRef):
        return result
    try:
        return ray.get(result)
    except RayTaskError as error:
        if isinstance(error.cause, SessError | RunError):
            raise error.cause from None
        raise
