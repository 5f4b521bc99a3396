"""The registry of base methods: what they are called, what they need and which options they have."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from torch import Tensor

from sess_ray.errors import SessError, unknown
from sess_ray.methods.options import converted
from sess_ray.own import imported

if TYPE_CHECKING:
    from sess_ray.models import Model

Family = Literal["T", "B", "P", "R"]
Place = Literal["layer", "pixels", "nothing"]
Cost = Literal["nothing", "one pass", "more"]


@dataclass(frozen=True)
class Defaults:
    """What SESS uses for a method if the user gives nothing.

    Attributes
    ----------
    ratio : float
        Share of the windows that the pre-filter drops.
    fade : float
        Share of a window's side over which its map fades towards its inner borders (`sess_ray.windows.Plan`).
    """

    ratio: float
    fade: float


# By what a window's map costs beyond its score. The fewer windows are kept, the more their borders show, and the more
# they have to fade (docs/research.md, "Which windows").
DEFAULTS: dict[Cost, Defaults] = {
    "nothing": Defaults(0.0, 0.1),
    "one pass": Defaults(0.5, 0.0),
    "more": Defaults(0.8, 0.25),
}
Check = Callable[["Model"], str | None]

# What the engine passes to a function that asks for it with a keyword-only parameter of this name without a default.
GIVEN = {
    "scores": "probabilities of the targets on the patches, (N,) float32, from the scoring pass",
    "activations": "output A of the model's layer for the patches, (N, K, u, v) float32, from the scoring pass",
    "gradients": "d(logit of the target)/dA for the patches, (N, K, u, v) float32, from the scoring pass",
    "same_as": "for each row the first row of the batch with the same patch, (N,) int64: such rows differ in target",
    "generators": "a torch.Generator for each patch, seeded by the run's seed and the window's number",
    "seed": "the run's seed, for random numbers that all patches share",
    "batch_size": "how many patches the model takes at a time",
}
# The same for methods of family T.
GIVEN_T = {"scored": "what else the scoring pass computed: `sess_ray.methods.registry.Scored`"}
LAYER = ("activations", "gradients")  # of what is given, the layer's values in the scoring pass


@dataclass(frozen=True)
class Scored:
    """What a method of family T may ask of the scoring pass, beside activations and gradients.

    Attributes
    ----------
    model : Model
        The model, prepared for its device and precision.
    targets : Tensor, (N,) int64
    logits : Tensor, (N, classes) float32
    pull : callable
        Takes weights (N, classes) and returns d(sum over classes of weight times logit)/dA, (N, K, u, v) float32. It
        costs one backward pass through the head.
    """

    model: Model
    targets: Tensor
    logits: Tensor
    pull: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A base saliency method.

    Attributes
    ----------
    name : str
    family : {"T", "B", "P", "R"}
        What it needs. T: the activations A and gradients g = d(logit)/dA of the scoring pass, at almost no extra cost.
        B: backward passes from each kept patch's output to its input. P: passes on perturbed patches. R: regions or an
        optimisation.
    function : callable
        Family T: (A, g), both (N, K, u, v) float32, to maps (N, u, v); or (A) alone, then no gradient is computed.
        Others: (model, patches (N, 3, h, w), targets (N,) int64) to maps (N, u, v). Maps need no normalisation; their
        size may be any.
        Keyword-only parameters with a default are the method's options; those without a default are filled by the
        engine (`GIVEN`, and for family T `GIVEN_T`).
    paper : str
        Where it was published.
    passes : str
        Passes through the model for each kept patch, beside the scoring pass, at the options' defaults. The text begins
        with the factors of their number, where K stands for the number of the layer's live channels: "10 K forwards".
    check : callable
        Takes a prepared `Model`; returns why the method cannot explain it, or None.
    reaches : {"layer", "pixels", "nothing"}
        How far back gradients have to reach. By default the layer for methods that take or ask for its gradients, the
        pixels for family B, else nothing.
    former : mapping
        Options that were removed, and what to use in their place.
    sess_defaults : Defaults
        What SESS uses for it. By default what it uses for methods of this cost.
    """

    name: str
    family: Family
    function: Callable[..., Tensor]
    paper: str = ""
    passes: str = ""
    check: Check | None = None
    former: Mapping[str, str] = field(default_factory=dict, compare=False)
    reaches: Place | None = None
    sess_defaults: Defaults | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    def num_passes(self, channels: int) -> int:
        """Return the number with which `passes` begins, for a layer of this many live channels; 1 if it has none.

        >>> get("sscam").num_passes(512), get("gradcam").num_passes(512)
        (5120, 0)
        """
        factors = takewhile(lambda word: word == "K" or word.isdecimal(), self.passes.split())
        return prod(channels if factor == "K" else int(factor) for factor in factors)

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.function).parameters.values())

    @property
    def _keywords(self) -> list[inspect.Parameter]:
        return [parameter for parameter in self._parameters if parameter.kind is parameter.KEYWORD_ONLY]

    @cached_property
    def options(self) -> dict[str, Any]:
        """The method's options and their defaults."""
        return {
            parameter.name: parameter.default for parameter in self._keywords if parameter.default is not inspect._empty
        }

    @cached_property
    def given(self) -> list[str]:
        """Names of what the engine passes to the function."""
        return [parameter.name for parameter in self._keywords if parameter.default is inspect._empty]

    @cached_property
    def looks_at(self) -> list[str]:
        """What the method is given of the layer's values in the scoring pass.

        >>> get("gradcam").looks_at, get("eigencam").looks_at, get("rise").looks_at
        (['activations', 'gradients'], ['activations'], [])
        """
        if self.family != "T":
            return [name for name in LAYER if name in self.given]
        places = [parameter.kind.name for parameter in self._parameters if "POSITIONAL" in parameter.kind.name]
        return list(LAYER[:1] if len(places) == 1 and places != ["VAR_POSITIONAL"] else LAYER)

    @property
    def pulls(self) -> bool:
        """Whether the method needs a gradient of the scoring pass."""
        return LAYER[1] in self.looks_at or "scored" in self.given

    @property
    def cost(self) -> Cost:
        """What a window's map costs beyond its score; more than one pass if the method does not say."""
        if self.family == "T":
            return "nothing"
        return "one pass" if self.passes and self.num_passes(channels=2) == 1 else "more"

    def ratio(self, given: float | None = None) -> float:
        """Return the pre-filter ratio: the given one, or the method's own.

        >>> [get(name).ratio() for name in ("gradcam", "shapleycam", "gradient", "groupcam")], get("gradcam").ratio(0.9)
        ([0.0, 0.0, 0.5, 0.8], 0.9)
        """
        return (self.sess_defaults or DEFAULTS[self.cost]).ratio if given is None else given

    def fade(self, given: float | None = None, fusion: str = "seamless") -> float:
        """Return the share of their side over which windows fade: the given one, or the method's own.

        The fusion `reference` has no fading: with it the default is 0.

        >>> [get(name).fade() for name in ("gradcam", "gradient", "groupcam")], get("groupcam").fade(0.0)
        ([0.1, 0.0, 0.25], 0.0)
        """
        own = (self.sess_defaults or DEFAULTS[self.cost]).fade if fusion == "seamless" else 0.0
        return own if given is None else given

    def refusal(self, model: Model) -> str | None:
        """Return why the method cannot explain a prepared model, or None if it can."""
        place = self.reaches
        if place is None:
            place = "layer" if self.pulls else "pixels" if self.family == "B" else "nothing"
        blocked = model.unreached(place) if place != "nothing" else None
        return blocked or (self.check(model) if self.check else None)

    def parsed(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Return options converted to the types of their defaults; values may be strings, as on a command line.

        Raises
        ------
        SessError
            If there is no such option, or its value does not fit: counts start at 1, other numbers at 0.
        """
        for name in options:
            if name in self.former:
                raise SessError(f"{self.name} has no option {name!r} any more: use {self.former[name]}")
            if name not in self.options:
                if not self.options:
                    raise SessError(f"{self.name} has no options, so not {name!r} either")
                raise unknown(f"option of {self.name}", name, self.options)
        return {name: converted(f"{self.name}: {name}", self._kind(name), value) for name, value in options.items()}

    def _kind(self, name: str) -> Any:
        """Return the type of an option: its annotation's or, if that cannot be read, its default's."""
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except NameError:  # a name that is imported only for type checkers
            hints = {}
        return hints.get(name, type(self.options[name]))


_METHODS: dict[str, Method] = {}
# The libraries of `sess_ray.methods.adapters`, and the packages that contain them.
ADAPTED = {"captum": "captum", "pytorch_grad_cam": "grad-cam", "zennit": "zennit"}


def register(
    name: str,
    *,
    family: Family = "P",
    paper: str = "",
    passes: str = "",
    check: Check | None = None,
    former: Mapping[str, str] | None = None,
    reaches: Place | None = None,
    sess_defaults: Defaults | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that registers a base method under `name`; the parameters are the attributes of `Method`.

    Examples
    --------
    >>> @register("brightness", paper="an example")
    ... def brightness(model, patches, targets, *, gamma: float = 1.0):
    ...     return patches.mean(1).exp() ** gamma
    >>> _METHODS.pop("brightness").options
    {'gamma': 1.0}
    """

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if name in _METHODS:
            raise SessError(f"a method named {name!r} is registered already")
        method = Method(name, family, function, paper, passes, check, former or {}, reaches, sess_defaults)
        _METHODS[name] = _fitting(method)
        return function

    return add


def _fitting(method: Method) -> Method:
    """Return a method as it is; `SessError` where its function asks for what it is not given."""
    of_layer = method.family == "T"
    offered, takes = (GIVEN_T, LAYER) if of_layer else (GIVEN, ("model", "patches", "targets"))
    try:
        places = method.looks_at if of_layer else takes
        inspect.signature(method.function).bind(*places, **dict.fromkeys(method.given))
    except (TypeError, ValueError) as error:  # of functions in C, some do not tell their signature
        raise SessError(f"method {method.name!r} is called with ({', '.join(takes)}): {error}") from error
    for wanted in method.given:
        if wanted not in offered:
            may = ", ".join(offered)
            raise SessError(f"method {method.name!r} asks for {wanted!r}: give the option a default, or ask for {may}")
    return method


def names() -> list[str]:
    """Return the names of all registered methods."""
    return list(_METHODS)


def package_of(name: str) -> str | None:
    """Return the pip package of the other library that a method's name asks for; None if it asks for none.

    >>> package_of("pytorch_grad_cam:GradCAM"), package_of("gradcam"), package_of("mine:method")
    ('grad-cam', None, None)
    """
    library, colon, _ = name.partition(":")
    return ADAPTED.get(library) if colon else None


def get(name: str | Callable[..., Tensor] | Method) -> Method:
    """Return a method by its name, by ``LIBRARY:NAME`` of another library, or by ``package.module:function``.

    A function is wrapped as a method; a `Method` is returned unchanged.

    Raises
    ------
    SessError
        If there is none; the message names the choices.
    """
    if isinstance(name, Method):
        return name
    if not isinstance(name, str):
        return _of_function(name)
    if package_of(name):
        # By name: if it were imported above, a changed adapter would count as a change of every method on resume.
        return importlib.import_module("sess_ray.methods.adapters").method(name)
    if name not in _METHODS and ":" in name:
        return _of_function(imported("method", name), name)
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]


def _of_function(function: Callable[..., Tensor], name: str | None = None) -> Method:
    """Return the method under which a function is registered, else a new one of family P with the function's name."""
    if not callable(function) or isinstance(function, type):
        raise SessError(f"method {function!r} is {type(function).__name__}: give a name or a function")
    registered = (method for method in _METHODS.values() if method.function is function)
    called = getattr(function, "__qualname__", type(function).__name__)
    own = name or f"{getattr(function, '__module__', None)}:{called}"
    return next(registered, None) or _fitting(Method(own, "P", function))


def require(method: Method, model: Model) -> None:
    """Raise `SessError`, which names the methods that work, if a method cannot explain a prepared model."""
    reason = method.refusal(model)
    if reason:
        others = [name for name, other in _METHODS.items() if other is not method and other.refusal(model) is None]
        raise SessError(f"{method.name} cannot explain {model.name}: {reason}; these methods can: {', '.join(others)}")
