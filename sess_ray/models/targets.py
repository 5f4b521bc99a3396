"""What a model can be asked about: its classes and groups, by number and by name, and what logits say of them."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

from torch import Tensor

from sess_ray.errors import SessError, unknown
from sess_ray.models import scores, wordnet
from sess_ray.models.groups import Group
from sess_ray.models.scores import Activation

_NUMBER = re.compile(r"-?[0-9]+(\.0+)?")  # tables with gaps in a column of integers write 281.0


class Targets:
    """A part of `Model`: a target is a class, or behind the last class a group of them (`sess_ray.models.groups`)."""

    if TYPE_CHECKING:
        name: str
        num_classes: int
        classes: tuple[str, ...]
        aliases: dict[str, tuple[int, ...]]
        groups: tuple[Group, ...]
        activation: Activation

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of every target, (N, num_classes + groups) float32, for logits (N, num_classes)."""
        return scores.probabilities(logits, self.groups, self.activation)

    def logit_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the logit of each row's target, (N,), for targets (N,) int64; with gradients where logits have them.

        It is what a target's gradients are taken of; of a group see `sess_ray.models.scores`.
        """
        return scores.logit_of(logits, targets, self.groups, self.activation)

    def log_probability_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the logarithm of the probability of each row's target, (N,) float32, as `logit_of`."""
        return scores.log_probability_of(logits, targets, self.groups, self.activation)

    def shares(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return d(logit of the target)/d(logits), (N, num_classes) float32: 1 for a class; those of a group share."""
        return scores.shares(logits, targets, self.groups, self.activation)

    def with_groups(self, groups: Mapping[str, Iterable[int | str]]) -> Self:
        """Return this model with further targets that mean several classes.

        Parameters
        ----------
        groups : dict
            Names to classes by index or name, such as ``{"dog": range(151, 269)}``. One that has the classes of
            another target is that target: groups are told apart by their classes, not by their names.

        Raises
        ------
        SessError
            If a group is empty, or there is no such class.
        """
        model = copy.copy(self)  # with what has been prepared for it
        model.learn(groups)
        return model

    def learn(self, groups: Mapping[str, Iterable[int | str]]) -> None:
        """Add groups to this very model, as `with_groups` does to a copy: for who has it to himself."""
        known = dict.fromkeys(group.classes for group in self.groups)
        added = []
        for name, members in groups.items():
            classes = self._members(members)
            if not classes:
                raise SessError(f"group {name!r} has no classes")
            if len(classes) > 1 and classes not in known:
                known[classes] = None
                added.append(Group(str(name), classes))
        object.__setattr__(self, "groups", (*self.groups, *added))

    def target_of(self, classes: Iterable[int | str]) -> int:
        """Return the target that means these classes: one class itself, or the group that has them."""
        members = self._members(classes)
        if len(members) == 1:
            return members[0]
        return self.num_classes + [group.classes for group in self.groups].index(members)

    def classes_of(self, target: int) -> tuple[int, ...]:
        """Return the classes that a target means."""
        return (target,) if target < self.num_classes else self.groups[target - self.num_classes].classes

    def target_index(self, target: int) -> int:
        """Return a target, of a class or a group, as it is; `SessError` where there is none."""
        known = self.num_classes <= target < self.num_classes + len(self.groups)
        return target if known else self.class_index(target)

    def target_name(self, target: int) -> str:
        """Return the name of a target, of a class or a group."""
        return self.class_name(target) if target < self.num_classes else self.groups[target - self.num_classes].name

    def class_name(self, index: int) -> str:
        """Return the name of a class; its number where the names are unknown."""
        return self.classes[index] if self.classes else str(index)

    def class_index(self, given: str | int) -> int:
        """Return the index of a class given by index or by name (any case, or an alias such as a WordNet id).

        A text that is the name of a class means that class, though it be a number; a number is an index.

        Raises
        ------
        SessError
            If there is no such class, or several of that name.
        """
        if hasattr(given, "__index__"):
            return self._at(operator.index(given))
        text = str(given).strip()
        found = self._named(text.lower())
        if not found and _NUMBER.fullmatch(text):
            return self._at(int(text.partition(".")[0]))
        if len(found) > 1:
            raise SessError(
                f"{self.name} has {len(found)} classes named {text!r}: use an index, {' or '.join(map(str, found))}"
            )
        if not found:
            if not self.classes:
                raise SessError(
                    f"the class names of {self.name} are unknown, so {text!r} must be an index: or give class names"
                )
            raise unknown("class", text, self.classes, f" ({self.name})")
        return found[0]

    def _at(self, index: int) -> int:
        if not 0 <= index < self.num_classes:
            raise SessError(f"class {index} is out of range: {self.name} has classes 0 to {self.num_classes - 1}")
        return index

    def named(self, name: str) -> tuple[int, ...]:
        """Return the indices of the classes that have this name, in any case; none where none has it."""
        return self._named(name.strip().lower())

    def knows(self, name: str) -> bool:
        """Say whether a class, or several, have this name."""
        return bool(self.named(name))

    def _members(self, classes: Iterable[int | str]) -> tuple[int, ...]:
        return tuple(sorted({self.class_index(member) for member in classes}))

    def _named(self, key: str) -> tuple[int, ...]:
        return self._names.get(key) or self.aliases.get(key) or wordnet.classes_of(key, self.classes)

    @cached_property
    def _names(self) -> dict[str, tuple[int, ...]]:
        names: dict[str, tuple[int, ...]] = {}
        for index, name in enumerate(self.classes):
            names[name.lower()] = (*names.get(name.lower(), ()), index)
        return names
