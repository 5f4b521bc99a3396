"""Methods of other libraries, by their names there: ``captum:NAME``, ``pytorch_grad_cam:NAME``, ``zennit:COMPOSITE``.

A library is imported when a method of it is asked for. Its options are its own, with its defaults; what is no number,
word, flag or tuple of them has none.
"""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sess_ray.errors import SessError, unknown
from sess_ray.methods.registry import Cost, Family, Method
from sess_ray.models import Model

ONCE = "1 forward + backward"
SIGNS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda values: values,
    "positive": lambda values: values.relu(),
    "negative": lambda values: (-values).relu(),
    "absolute_value": lambda values: values.abs(),
}
KINDS = {bool: "true or false", int: "a whole number from 1 on", float: "a number from 0 on", tuple: "numbers"}
LEAST = {int: 1, float: 0}
CHOICES = {"sign": tuple(SIGNS), "canonizer": ("auto", "batch_norm", "resnet", "vgg", "none")}


@dataclass(frozen=True)
class Adapted(Method):
    """A method of another library.

    Attributes
    ----------
    defaults : mapping
        Its options and their defaults; None takes any value.

    The others are those of `Method`.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The method's options and their defaults."""
        return dict(self.defaults)

    @property
    def cost(self) -> Cost:
        """What a window's map costs beside its score."""
        return "one pass" if self.passes == ONCE else "more"

    def parsed(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Return all options, those in words as Python would read them: ``3,16,16`` is a tuple.

        Raises
        ------
        SessError
            If there is no such option, or its value is of another kind than its default: counts start at 1, other
            numbers at 0.
        """
        for name in options:
            if name not in self.options:
                raise unknown(f"option of {self.name}", name, self.options)
        return self.options | {name: self._read(name, value) for name, value in options.items()}

    def _read(self, name: str, value: object) -> object:
        default = self.options[name]
        if isinstance(value, str) and not (isinstance(default, str) and value.isidentifier()):
            with suppress(ValueError, SyntaxError):
                value = ast.literal_eval({"true": "True", "false": "False"}.get(value.lower(), value))
        if name in CHOICES and value not in CHOICES[name]:
            raise SessError(f"{self.name}: {name}={value}: choose one of: {', '.join(CHOICES[name])}")
        if default is None or type(value) is type(default) or (type(default), type(value)) == (float, int):
            least = LEAST.get(type(default))
            if least is None or least <= value < math.inf:  # type: ignore[operator]
                return value
        raise SessError(f"{self.name}: {name}={value}: use {KINDS.get(type(default), 'a word')}, such as {default}")


def method(spec: str) -> Method:
    """Return a method of another library, named ``LIBRARY:NAME``.

    Raises
    ------
    SessError
        If the library is not installed, or has no such method of an image's class.
    """
    library, _, name = spec.partition(":")
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise SessError(f"{spec} needs {library}, which is not installed: pip install 'sess-ray[adapters]'") from error
    adapter = importlib.import_module(f"{__name__}.of_{library}")
    function, defaults, passes = adapter.found(name)
    family: Family = "B" if passes else "P"
    return Adapted(spec, family, function, library, passes, _Trial(spec, function, defaults), defaults=defaults)


@dataclass(frozen=True)
class _Trial:
    """Says why a method cannot explain a model: what the library says to a small try on a random patch."""

    spec: str
    function: Callable[..., Tensor]
    defaults: Mapping[str, Any]
    # As little as shows whether it works.
    little = {"n_samples": 2, "n_steps": 2, "cells": 2}  # noqa: RUF012

    def __call__(self, model: Model) -> str | None:
        reason = self.function.refusal(model)  # type: ignore[attr-defined]
        if reason or not self.function.tried:  # type: ignore[attr-defined]
            return reason
        probe = model.probe()
        probe += torch.randn(probe.shape, generator=torch.Generator().manual_seed(0)).to(probe)
        options = dict(self.defaults) | {name: few for name, few in self.little.items() if name in self.defaults}
        if "sliding_window_shapes" in options:
            options |= {"sliding_window_shapes": (3, *probe.shape[2:]), "strides": None}
        generators = [torch.Generator(probe.device).manual_seed(0)]
        try:
            found = self.function(model, probe, probe.new_zeros(1, dtype=torch.int64), generators=generators, **options)
        except Exception as error:
            return f"{self.spec.partition(':')[0]} says: {str(error).strip().splitlines()[0] or type(error).__name__}"
        return None if found.isfinite().all() else "its map is not finite"


class _Columns(nn.Module):
    """A model with a column of logits for each group of classes behind those of the classes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.module, self.model = model.module, model

    def forward(self, patches: Tensor) -> Tensor:
        logits = self.module(patches)
        first, groups = logits.shape[1], len(self.model.groups)
        targets = (torch.full((len(logits),), first + group, device=logits.device) for group in range(groups))
        return torch.cat([logits, *(self.model.logit_of(logits, one)[:, None].to(logits) for one in targets)], 1)


def module_of(model: Model) -> nn.Module:
    """Return what maps patches to the logit of every target."""
    return _Columns(model) if model.groups else model.module


def layer_of(model: Model) -> nn.Module:
    """Return the layer that class activation maps look at."""
    return model.module.get_submodule(model.layer)


def has_rectifiers(model: Model) -> bool:
    """Return whether a library that looks for modules finds a ReLU to change."""
    return any(isinstance(module, nn.ReLU) for module in model.module.modules())


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Give the generators that all share, torch's and NumPy's, a seed from `generator`; afterwards their own state."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    before = np.random.get_state()  # noqa: NPY002 - what these libraries draw from
    devices = [generator.device] if generator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
