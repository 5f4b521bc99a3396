"""What labels mean to a model: words, the classes that a table names, and folders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from sess_ray.errors import SessError
from sess_ray.io.annotations import ClassMap
from sess_ray.io.items import HERE, folder_label
from sess_ray.models import Model
from sess_ray.models.groups import meaning, members

# What programs write into tables for nothing. A class may have such a name: then it is the class.
MISSING = ("nan", "<na>", "null", "none")
TOLD = 3  # names
Meaning = tuple[str, tuple[int, ...]]  # a name and the classes, ascending

logger = logging.getLogger("sess_ray")


@dataclass(frozen=True)
class Words:
    """What targets in words mean to a model: the labels of a class map come before its own names.

    Attributes
    ----------
    model : Model
        Learns the groups.
    known : ClassMap
    """

    model: Model
    known: ClassMap

    def target(self, text: str) -> int:
        """Return the target that is meant, which the model learns if it is a group."""
        return self.learned(text, self._meaning(text.strip()))

    def learned(self, text: str, meaning: Meaning) -> int:
        """Return the target that has a meaning, which the model learns if it is a group."""
        name, classes = meaning
        for group in self.model.groups:
            if group.name == name and group.classes != classes:
                raise SessError(f"target {text!r}: {name} already means {len(group.classes)} other classes: rename one")
        self.model.learn({name: classes})
        return self.model.target_of(classes)

    def named(self, text: str) -> Meaning | None:
        """Return what has this name, whatever it is the index of; None where nothing has it."""
        if text.isdecimal() and text not in (self.known.entries or ()):
            found = self.model.named(text)
            return (text, found) if len(found) == 1 else None
        try:
            return self._meaning(text)
        except SessError:
            return None

    def is_missing(self, text: str) -> bool:
        """Say whether a label is what programs write where there is none."""
        return text.lower() in MISSING and self.named(text) is None

    def _meaning(self, text: str) -> Meaning:
        if text not in (self.known.entries or ()):
            return self._own_meaning(text)
        classes = self.known.classes(text, partial(members, model=self.model))
        if not classes:
            raise SessError(f"class map {self.known.source}: label {text!r} means no class")
        return text, tuple(sorted(classes))

    def _own_meaning(self, text: str) -> Meaning:
        try:
            return meaning(text, self.model)
        except SessError:
            parts = (part.strip() for part in text.split(",")) if "," in text else ()
            found = dict.fromkeys(filter(None, map(self.named, parts)))
            if len(found) != 1:  # else it is one class, and its synonyms
                raise
        return next(iter(found))


def table_classes(class_names: Iterable[tuple[str, ...]], words: Words) -> dict[str, Meaning]:
    """Return what the classes mean that tables name.

    They are the model's of these names. Where there are as many as the model has, and none has the name of one that
    stands elsewhere in the model's order, they are the model's in this order.

    Parameters
    ----------
    class_names : iterable of tuples of str
        The names, in their order; one for each way to name them.
    words : Words

    Raises
    ------
    SessError
        If the model knows none of the names and has another number of classes, or if tables that name the same
        classes in other orders leave it open which are meant.
    """
    found: dict[str, Meaning] = {}
    model = words.model
    for names in class_names:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise SessError(
                f"the labels are of {len(names)} classes, of which several are named {twice[0]!r}: rename one"
            )
        own = {name: told for name in names if (told := _of_synonyms(name, words)) is not None}
        in_order: dict[str, Meaning] = {name: (name, (index,)) for index, name in enumerate(names)}
        if len(names) == model.num_classes and all(own[name][1] == in_order[name][1] for name in own):
            _tell_order([name for name in names if name not in own], names, model)
            own = in_order
        if not own:
            raise SessError(
                f"the labels are of {len(names)} classes ({_some(names)}) whose names {model.name}, of"
                f" {model.num_classes} classes, does not know: give --class-names, or a --class-map with these labels"
            )
        if any(found.get(name, told)[1] != told[1] for name, told in own.items()):
            raise SessError(
                f"tables of the input have the same classes in different orders ({_some(names)}), and {model.name} does"
                " not know their names: give --class-names, or explain them one by one"
            )
        found |= own
    return found


def _tell_order(unknown: Sequence[str], names: Sequence[str], model: Model) -> None:
    """Say in a line that names which a model does not know are taken as its classes, in their order."""
    if unknown:
        own = [model.class_name(index) if model.classes else f"class {index}" for index in range(len(names))]
        told = ", ".join(f"{name} is {other}" for name, other in list(zip(names, own, strict=True))[:TOLD])
        more = " ..." if len(names) > TOLD else ""
        logger.warning("the labels are taken as the classes of %s in their order: %s%s", model.name, told, more)


def _of_synonyms(name: str, words: Words) -> Meaning | None:
    """Return what a name means, or, as ImageNet's are often written, the first of several between commas."""
    parts = (part.strip() for part in name.split(","))
    return words.named(name) or next(filter(None, map(words.named, parts)), None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:TOLD]) + (" ..." if len(names) > TOLD else "")


@dataclass(frozen=True)
class Folders:
    """What the folders of images say.

    Attributes
    ----------
    level : int
        The level of the folders that are the classes; 0 for those directly below the input.
    known : dict of str to Meaning
        What these folders mean, where their names alone do not tell.
    """

    level: int
    known: dict[str, Meaning]

    def labels(self, folder: str | None) -> list[str]:
        """Return the label of the images in a folder; none where it lies too far up."""
        return folder_label(folder, self.level)


def folder_classes(folders: Iterable[str], words: Words, every: Callable[[], Iterable[str]]) -> Folders:
    """Find which folders are the classes.

    They are the outermost level of folders of which one has the name of a class. Where none has, they are the folders
    directly below the input: their names are indices, or, if there are as many as the model has classes, they are its
    classes in sorted order, by torchvision's rule (`ImageFolder`).

    Parameters
    ----------
    folders : iterable of str
        Those with images, as `sess_ray.io.items.Item` has them.
    words : Words
    every : callable
        Lists the folders of all images, where the others are only some.

    Raises
    ------
    SessError
        If numbers may be indices, or classes in sorted order, which are others.
    """
    names = {folder for folder in folders if not folder.startswith(HERE)}
    if any(words.named(folder.split("/")[0]) is None for folder in names):
        names.update(folder for folder in every() if not folder.startswith(HERE))
    for level in range(max((folder.count("/") for folder in names), default=-1) + 1):
        parts = {folder.split("/")[level] for folder in names if folder.count("/") >= level}
        known = {part: told for part in parts if (told := words.named(part)) is not None}
        if known:
            return Folders(level, known)
    tops = sorted({folder.split("/")[0] for folder in names})
    if len(tops) != words.model.num_classes:
        return Folders(0, {})
    in_order: dict[str, Meaning] = {name: (name, (index,)) for index, name in enumerate(tops)}
    if not all(name.isdecimal() for name in tops):
        _tell_order(tops, tops, words.model)
    if all(name.isdecimal() for name in tops) and any(int(name) != index for index, name in enumerate(tops)):
        raise SessError(
            f"the folders {_some(tops)} may be indices of classes, or the {len(tops)} classes in sorted order:"
            " give --class-names, a file with their names"
        )
    return Folders(0, in_order)
