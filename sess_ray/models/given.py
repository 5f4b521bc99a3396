"""What a caller says of a model, in the place of what is known of it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sess_ray.errors import SessError
from sess_ray.models.layers import find_layer
from sess_ray.models.model import Model
from sess_ray.models.outputs import refuse_scores
from sess_ray.models.reading import probes
from sess_ray.models.scores import Activation
from sess_ray.windows import Size, in_words, size_of


@dataclass(frozen=True)
class Given:
    """What a caller says; None is left to the model."""

    class_names: Sequence[str] | None
    input_size: int | Sequence[int] | None
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    activation: Activation | None

    @property
    def size(self) -> Size | None:
        return None if self.input_size is None else checked_size(self.input_size, "input_size")

    def names(self, num_classes: int, name: str) -> tuple[str, ...]:
        """Return the names that are given, which may hold commas; none where none are."""
        if self.class_names is None:
            return ()
        if isinstance(self.class_names, str | Mapping) or not all(isinstance(one, str) for one in self.class_names):
            raise SessError("class names are a list of words, in the order of the classes")
        if len(self.class_names) != num_classes:
            raise SessError(f"{len(self.class_names)} class names for the {num_classes} classes of {name}")
        return tuple(self.class_names)

    def changed(self, model: Model, layer: str | None) -> Model:
        """Return a model with all that is given; itself where nothing is."""
        changes: dict[str, Any] = {}
        if self.class_names is not None:
            changes |= {"classes": self.names(model.num_classes, model.name), "aliases": aliases_of(self.class_names)}
        size = self.size or model.input_size
        if layer is not None or size != model.input_size:
            found = find_layer(model.module, size, layer or model.layer)
            changes |= {"layer": found.name, "layout": found.layout, "positions": found.positions, "input_size": size}
        changes |= {
            name: colours(name, value) for name, value in (("mean", self.mean), ("std", self.std)) if value is not None
        }
        if self.activation is not None:
            changes["activation"] = self.activation
        if self.activation == "none":
            refuse_scores(model.module(probes(model.module, size)), model.name)
        return replace(model, **changes) if changes else model


def checked_size(size: int | Sequence[int], what: str) -> Size:
    """Return the size of a model's input: one number where it is square."""
    try:
        height, width = map(operator.index, (size, size) if hasattr(size, "__index__") else size)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise SessError(
            f"{what} {size!r}: give the side of the input in pixels, such as 224, or its height and width"
        ) from None
    if min(height, width) < 1:
        raise SessError(f"{what} is {in_words(size_of(height, width))}: use 1 pixel or more")
    return size_of(height, width)


def colours(what: str, values: float | Sequence[float]) -> tuple[float, ...]:
    """Return a mean or a standard deviation of the three colours."""
    try:
        three = tuple(map(float, (values,) * 3 if isinstance(values, int | float) else values))
    except (TypeError, ValueError):
        raise SessError(f"{what} {values!r}: give three numbers, for R, G and B in 0..1, or one for all") from None
    if len(three) == 1:
        three *= 3
    fits = all(0 <= value <= 1 if what == "mean" else value > 0 for value in three)
    if len(three) != 3 or not fits:
        listed = ", ".join(f"{value:g}" for value in three)
        raise SessError(f"{what} {listed}: give three numbers, for R, G and B in 0..1, or one for all")
    return three


def aliases_of(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return every synonym of "tench, Tinca tinca"."""
    aliases: dict[str, tuple[int, ...]] = {}
    for index, entry in enumerate(classes):
        names = {name.strip().lower() for name in (entry, *entry.split(","))} if "," in entry else ()
        for name in names:
            aliases[name] = (*aliases.get(name, ()), index)
    return aliases
