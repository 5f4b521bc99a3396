"""Which classes to explain, from flags, manifests and folder names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.engine.chosen import is_chosen
from sess_ray.errors import SessError
from sess_ray.io.annotations import Annotations, ClassMap
from sess_ray.io.items import CHUNK, is_shard, shard_rows
from sess_ray.io.spans import Known
from sess_ray.models import Model
from sess_ray.models.groups import members
from sess_ray.pipeline.explain.labels import Meaning, Words, folder_classes, table_classes
from sess_ray.pipeline.explain.source import INPUT_STAGE
from sess_ray.pipeline.explain.stages import NO_LABEL, TASKS

Several = Literal["group", "best"]
TOLD = 5  # of many names or reasons, in a message
Targets = list[tuple[int, ...]]  # for each target its alternatives, of which the model's favourite is explained


def resolve(
    items: pa.Table,
    targets: str,
    model: Model,
    class_map: str | None = None,
    class_names: Sequence[tuple[str, ...]] = (),
    folders: Callable[[], Iterable[str]] = tuple,
) -> pa.Table:
    """Find the classes, and groups of classes, to explain of each image.

    Parameters
    ----------
    items : pa.Table
        As `sess_ray.io.items.ITEMS` has them.
    targets : str
        ``auto``, ``label``, ``topK``, ``p>T``, or targets in words (`sess_ray.models.groups.meaning`), separated by
        commas.
    model : Model
        Learns the groups.
    class_map : str or None
        URL of a `ClassMap`; its labels come before the model's own names.
    class_names : sequence of tuples of str
        As `sess_ray.io.inputs.Inputs` has them.
    folders : callable
        Lists the folders of all images, also of those that are not among the items.

    Returns
    -------
    pa.Table
        As `TASKS` has them. An image whose label is no class of the model has an error instead of targets; the labels
        of tar shards are found when they are read.

    Raises
    ------
    SessError
        If `targets` names no class, or no image has a label that is one.
    """
    words = Words(model, ClassMap.read(class_map) if class_map else ClassMap())
    if is_chosen(targets):
        return _alike(items, targets)
    if targets not in ("auto", "label"):
        return _alike(items, [(index,) for index in _named(targets, words)])
    if targets == "auto" and items["targets"].null_count == items.num_rows:
        return _alike(items, "top1")
    if class_map and pc.any(shard_rows(items["uri"])).as_py():
        raise SessError("--class-map: the labels in tar shards are classes of the model")
    folder = folder_classes(_values(items["folder"]), words, folders) if targets == "label" else None
    unsaid = items.filter(pc.and_(pc.is_null(items["targets"]), pc.is_valid(items["labels"])))
    labels = {**table_classes(class_names if unsaid.num_rows else (), words), **(folder.known if folder else {})}
    known: dict[Any, str | Targets | SessError] = {}

    def declared(row: dict[str, Any]) -> str | Targets | None:
        if targets == "label" and is_shard(row["uri"]):
            return None
        own = row["labels"] or (folder.labels(row["folder"]) if folder else [])
        key = (tuple(own), tuple(row["targets"] or ()))
        if key not in known:
            try:
                known[key] = _declared(*key, words, labels) or _undeclared(targets)
            except SessError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, SessError):
            raise SessError(str(found))  # a new one: an exception that is raised again keeps all its tracebacks
        return found

    return _tasks(items, declared, model)


@dataclass(frozen=True)
class Declared:
    """What the words of a manifest mean to a model, for who has both: the rows of a large one are seen by actors.

    Attributes
    ----------
    mode : str
        ``auto`` or ``label``.
    class_map : ClassMap
    labels : dict of str to Meaning
        What the classes mean that the manifest names, and its folders.
    level : int or None
        The level of the folders that are the classes.
    known : dict
        What was asked before.
    """

    mode: str
    class_map: ClassMap
    labels: Mapping[str, Meaning]
    level: int | None = None
    known: dict[Any, str | Targets] = field(default_factory=dict)

    def of(self, row: Mapping[str, Any], model: Model) -> str | Targets:
        """Return what to explain of an image; the model learns the groups.

        Raises
        ------
        SessError
            If the model does not know what the manifest says of it.
        """
        key = (tuple(row["labels"] or ()), tuple(row["names"] or ()))
        if key not in self.known:
            self.known[key] = _declared(*key, Words(model, self.class_map), self.labels) or _undeclared(self.mode)
        return self.known[key]


def meant(targets: str, model: Model, class_map: str | None, known: Known) -> str | Targets | Declared:
    """Return what to explain of each image of a large manifest, or who knows it.

    Parameters
    ----------
    targets, model, class_map
        As for `resolve`.
    known : Known
        What is known of all its rows.
    """
    words = Words(model, ClassMap.read(class_map) if class_map else ClassMap())
    if is_chosen(targets):
        return targets
    if targets not in ("auto", "label"):
        return [(index,) for index in _named(targets, words)]
    if targets == "auto" and known.columns.targets is None:
        return "top1"
    labels = table_classes(known.names, words)
    if targets == "label" and known.folders:
        found = folder_classes(known.folders, words, tuple)
        return Declared(targets, words.known, {**labels, **found.known}, found.level)
    return Declared(targets, words.known, labels)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the different values of a column, nulls left out."""
    return column.unique().drop_null().to_pylist()


def _alike(items: pa.Table, found: str | Targets) -> pa.Table:
    """Return the tasks of items that have the same targets."""
    given = {"top" if isinstance(found, str) else "targets": found}
    known = {name: items[name] for name in ("image_id", "uri", "error")}
    known["stage"] = pc.if_else(pc.is_valid(items["error"]), INPUT_STAGE, None)
    columns = [
        known[name] if name in known else pa.repeat(pa.scalar(given.get(name), kind), items.num_rows)
        for name, kind in zip(TASKS.names, TASKS.types, strict=True)
    ]
    return pa.table(columns, schema=TASKS)


def _tasks(
    items: pa.Table, find: Callable[[dict[str, Any]], str | Targets | None], model: Model, told_by: str = "a label"
) -> pa.Table:
    """Return the tasks of items, whose targets, or error, `find` knows of each."""
    chunks, first = [], None
    for batch in items.to_batches(CHUNK):
        rows = batch.to_pylist()
        for row in rows:
            try:
                if row["error"] is not None:
                    raise SessError(row["error"])
                found = find(row)
                row["top"], row["targets"] = (found, None) if isinstance(found, str) else (None, found)
            except SessError as error:
                stage = INPUT_STAGE if row["error"] else "targets"
                row["targets"], row["stage"], row["error"] = None, stage, str(error)
                first = first or row["error"]
        chunks.append(pa.Table.from_pylist(rows, TASKS))
    tasks = pa.concat_tables(chunks)
    if not tasks["error"].null_count:
        raise SessError(f"no image has {told_by} that {model.name} knows, the first: {first}")
    return tasks


def label_classes(annotations: Annotations, class_map: str | None, model: Model) -> dict[str, tuple[int, ...]]:
    """Return which classes of the model each label of the annotations means; none for some.

    Parameters
    ----------
    annotations : Annotations
    class_map : str or None
        URL of a `ClassMap`; without it labels are class indices, names or WordNet ids, or nodes of WordNet.
    model : Model

    Raises
    ------
    SessError
        If the model knows none of the labels.
    """
    known = ClassMap.read(class_map) if class_map else ClassMap()
    classes = {label: known.classes(label, partial(members, model=model)) for label in annotations.labels()}
    if not classes:
        left_out = "".join(f"; {line}" for line in malformed(annotations))
        raise SessError(f"{annotations.source} has {len(annotations.by_id)} images and no objects in them{left_out}")
    if not any(classes.values()):
        named = ", ".join(map(repr, list(classes)[:3]))
        raise SessError(f"{model.name} knows no label of {annotations.source} ({named}): give a --class-map")
    return classes


def annotated(
    items: pa.Table,
    annotations: Annotations,
    classes: Mapping[str, tuple[int, ...]],
    model: Model,
    several: Several = "group",
    unknown: Counter[str] | None = None,
) -> pa.Table:
    """Take the targets of each image from annotations.

    Parameters
    ----------
    items, annotations
    classes : mapping
        Which classes of the model a label means.
    model : Model
        Learns the groups.
    several : {"group", "best"}
        What a label that means several classes is: a group, or the one of highest score in each image.
    unknown : Counter, optional
        Counts the objects whose labels mean no class of the model, by label.

    Returns
    -------
    pa.Table
        As `TASKS` has them. An image without a label that the model knows has an error instead of targets.
    """
    wanted = {label: own for label, own in classes.items() if own}
    if several == "group":
        model.learn(wanted)
        wanted = {label: (model.target_of(own),) for label, own in wanted.items()}

    def find(row: dict[str, Any]) -> Targets:
        found = annotations.find(row["image_id"])
        if found is None:
            raise SessError("the image is not annotated")
        labels = Counter(thing.label for thing in found.objects)
        targets = list(dict.fromkeys(wanted[label] for label in labels if label in wanted))
        if unknown is not None:
            unknown.update({label: count for label, count in labels.items() if label not in wanted})
        if not labels:
            faults = annotations.problems_of(found.image_id)
            why = f" that can be used: {'; '.join(faults[:3])}" if faults else ""
            raise SessError(f"the image is annotated, with no object in it{why}")
        if not targets:
            raise SessError(f"the image shows {_listed(labels)}, and {model.name} has no such class")
        return targets

    return _tasks(items, find, model, "an annotation")


def malformed(annotations: Annotations) -> list[str]:
    """Say in a line, or none, which entries of annotations were left out, how many, and why."""
    if not annotations.problems:
        return []
    first = {detail.partition(":")[0]: place for place, detail in reversed(annotations.problems)}
    why = [f"{reason} ({count}, the first: {first[reason]})" for reason, count in annotations.reasons().items()]
    more = f"; and {len(why) - TOLD} other reasons" if len(why) > TOLD else ""
    entries = "1 entry" if len(annotations.problems) == 1 else f"{len(annotations.problems)} entries"
    return [f"{entries} of {annotations.source} left out: {'; '.join(why[:TOLD])}{more}"]


def unclassed(unknown: Counter[str], model: Model) -> list[str]:
    """Say in a line, or none, which objects mean no class of the model."""
    if not unknown:
        return []
    named = _listed([f"{label} ({count})" for label, count in unknown.most_common()])
    objects = "1 object" if unknown.total() == 1 else f"{unknown.total()} objects"
    return [f"{objects} left out, {model.name} has no class for {named}: a --class-map gives them one"]


def unlabelled(tasks: pa.Table) -> list[str]:
    """Say in a line, or none, of how many images it is known before they are read that they have no target, and why."""
    errors = Counter(tasks["error"].drop_null().to_pylist())
    if not errors:
        return []
    why = [f"{reason} ({count})" for reason, count in errors.most_common(TOLD)]
    more = f"; and {len(errors) - TOLD} other reasons" if len(errors) > TOLD else ""
    images = "1 image" if tasks.num_rows == 1 else f"{tasks.num_rows:,} images"
    return [f"{errors.total():,} of {images} cannot be explained: {'; '.join(why)}{more}"]


def _listed(names: Collection[str]) -> str:
    """Return names as a person lists them.

    >>> _listed(["person"]), _listed(["person", "dog", "cat"]), _listed("abcdefg")
    ('person', 'person, dog and cat', 'a, b, c, d, e and 2 more')
    """
    *first, last = names
    if len(first) > TOLD:
        first, last = first[:TOLD], f"{len(first) + 1 - TOLD} more"
    return f"{', '.join(first)} and {last}" if first else last


def _declared(
    labels: tuple[str, ...], targets: tuple[str, ...], words: Words, known: Mapping[str, Meaning]
) -> str | Targets | None:
    """Return the targets that an image comes with: those of the manifest, else its labels."""
    targets = tuple(target for target in targets if not words.is_missing(target))
    if targets:
        if len(targets) == 1 and is_chosen(targets[0]):
            return targets[0]
        return [(index,) for index in dict.fromkeys(words.target(name) for name in targets)]
    labels = tuple(label for label in labels if label in known or not words.is_missing(label))
    found = (words.learned(label, known[label]) if label in known else words.target(label) for label in labels)
    return [(index,) for index in dict.fromkeys(found)] or None


def _undeclared(targets: str) -> str:
    if targets == "label":
        raise SessError(NO_LABEL)
    return "top1"


def _named(targets: str, words: Words) -> list[int]:
    names = [name for name in targets.split(";" if ";" in targets else ",") if name.strip()]
    if not names or words.model.knows(targets):  # a name may hold a comma itself
        names = [targets]
    chosen = next((name.strip() for name in names if is_chosen(name.strip())), None)
    if chosen:
        raise SessError(f"targets {chosen!r} stand alone: give them as they are, not in a list")
    return list(dict.fromkeys(words.target(name) for name in names))
