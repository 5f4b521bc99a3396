"""The registry of base methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from sess_ray.errors import SessError, unknown

if TYPE_CHECKING:
    from sess_ray.models import Model

Family = Literal["T", "B", "P", "R"]
TapFunction = Callable[[Tensor, Tensor], Tensor]
PatchFunction = Callable[["Model", Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A base saliency method.

    Attributes
    ----------
    name : str
    family : {"T", "B", "P", "R"}
        What it needs. T: activations A and gradients g = d(logit)/dA of the scoring pass, which cost next to
        nothing more. B: a backward pass to the input of each kept patch. P: more forward passes on perturbed
        patches. R: regions or an optimisation.
    function : callable
        Family T: (A, g), both (N, K, u, v) float32, to maps (N, u, v). Others: (model, patches (N, 3, h, w),
        targets (N,)) to maps (N, u, v). Maps need no normalisation; their size may be any.
    paper : str
        Where it was published.
    """

    name: str
    family: Family
    function: Callable[..., Tensor]
    paper: str

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]


_METHODS: dict[str, Method] = {}


def register(
    name: str, *, family: Family = "P", paper: str = ""
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a base method under `name`; a decorator.

    Examples
    --------
    >>> @register("brightness", paper="an example")
    ... def brightness(model, patches, targets):
    ...     return patches.mean(1)
    >>> _ = _METHODS.pop("brightness")
    """

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if name in _METHODS:
            raise SessError(f"a method named {name!r} is registered already")
        _METHODS[name] = Method(name, family, function, paper)
        return function

    return add


def names() -> list[str]:
    """Return the names of all registered methods."""
    return list(_METHODS)


def get(name: str) -> Method:
    """Return a method by name; `SessError` names the choices where there is none."""
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]
