"""Which classes to explain: what a caller may say, and what the engine makes of it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sess_ray.engine.chosen import is_chosen, is_top, threshold
from sess_ray.errors import SessError
from sess_ray.models import Model
from sess_ray.models.groups import meaning
from sess_ray.transfer import upload

GroupSpec = Mapping[str, Iterable[int | str]]  # a name, and the classes that it means
TargetSpec = str | int | GroupSpec | Sequence[int | str | GroupSpec | Sequence[int]]
# What the model chooses, "topK" or "p>T"; or for each target the classes (or groups) of which the best is explained.
Targets = str | list[tuple[int, ...]]

MOST_ABOVE = 20  # classes of an image that are explained, of all that have a probability above a threshold


def checked(spec: TargetSpec, model: Model) -> Targets:
    """Return what a caller asks of one image as "topK", "p>T" or a list of alternatives; the model learns its groups.

    Raises
    ------
    SessError
        If it reads otherwise, is empty, or names a class that the model does not have.
    """
    if isinstance(spec, str) and is_top(spec):
        return f"top{min(int(spec[3:]), model.num_classes)}"
    if isinstance(spec, str) and threshold(spec) is not None:
        return spec
    wanted: list[tuple[int, ...]] = []
    for entry in [spec] if isinstance(spec, str | Mapping) else _indices(spec):
        if isinstance(entry, str | Mapping):
            groups = {name: tuple(classes) for name, classes in _named(entry, model).items()}
            model.learn(groups)
            wanted += [(model.target_of(classes),) for classes in groups.values()]
        else:
            wanted.append(_indices(entry))
    if not wanted or not all(wanted):
        raise SessError("an image without targets: give at least one class index")
    try:
        return [tuple(model.target_index(operator.index(target)) for target in entry) for entry in wanted]
    except TypeError:
        raise _no_target(spec) from None


def _indices(given: Any) -> tuple[Any, ...]:
    """Return the entries of a sequence; of an index, itself as the only one."""
    try:
        return (operator.index(given),)
    except TypeError:
        pass
    try:
        return tuple(given)
    except TypeError:
        raise _no_target(given) from None


def _no_target(given: object) -> SessError:
    return SessError(f'target {given!r}: give classes by index or name, groups of them as dicts, or "top1"')


def _named(entry: str | GroupSpec, model: Model) -> GroupSpec:
    if not isinstance(entry, str):
        return entry
    if is_chosen(entry):
        raise SessError(f"targets {entry!r} stand alone: give them as they are, not in a list")
    return dict([meaning(entry, model)])


def above(probabilities: Tensor, least: float) -> list[tuple[int, ...]]:
    """Return the classes of one image, of probabilities (classes,), above a threshold: descending, `MOST_ABOVE`."""
    values, classes = probabilities.topk(min(len(probabilities), MOST_ABOVE))
    return [(index,) for value, index in zip(values.tolist(), classes.tolist(), strict=True) if value > least]


@dataclass(frozen=True)
class Goal:
    """What to explain of one image, ready on the device: nothing has to be read to know it.

    Attributes
    ----------
    count : int
        Number of targets, T.
    alternatives : Tensor, (T, A) int64, or None
        For each target the classes, or groups, of which that of highest score is explained; None for the T classes of
        highest score.
    """

    count: int
    alternatives: Tensor | None

    @classmethod
    def of(cls, targets: Targets, device: torch.device) -> Goal:
        if isinstance(targets, str):
            return cls(int(targets[3:]), None)
        most = max(map(len, targets))
        padded = [[*entry, *entry[:1] * (most - len(entry))] for entry in targets]
        return cls(len(targets), upload(torch.tensor(padded), device))

    def among(self, probabilities: Tensor, num_classes: int) -> Tensor:
        """Return the targets, (T,) int64, for an image's probabilities, (classes + groups,)."""
        if self.alternatives is None:
            return probabilities[:num_classes].topk(self.count).indices
        if self.alternatives.shape[1] == 1:
            return self.alternatives[:, 0]
        best = probabilities[self.alternatives].argmax(1, keepdim=True)
        return self.alternatives.gather(1, best)[:, 0]
