"""Which classes to explain, from flags, manifests and folder names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sess_ray.errors import SessError
from sess_ray.explainer import is_top
from sess_ray.io.annotations import Annotations, ClassMap
from sess_ray.io.inputs import Item
from sess_ray.models import Model


@dataclass
class Task:
    """An image with the classes to explain, or why they are not known.

    Attributes
    ----------
    item : Item
    targets : str or list of tuple of int
        "topK", or for each target its alternatives, of which the model's favourite is explained.
    error : str or None
    """

    item: Item
    targets: str | list[tuple[int, ...]] = "top1"
    error: str | None = None


def resolve(items: Sequence[Item], targets: str, model: Model) -> list[Task]:
    """Find the classes to explain of each image.

    Parameters
    ----------
    items : sequence of Item
    targets : str
        ``auto``, ``label``, ``topK``, or class indices or names separated by commas.
    model : Model

    Returns
    -------
    list of Task
        An image whose label is no class of the model has an error instead of targets.

    Raises
    ------
    SessError
        If `targets` names no class, or no image has a label that is one.
    """
    if is_top(targets):
        return [Task(item, targets) for item in items]
    if targets not in ("auto", "label"):
        indices = _named(targets, model)
        return [Task(item, [(index,) for index in indices]) for item in items]
    declared = any(item.targets for item in items)
    if targets == "auto" and not declared:
        return [Task(item) for item in items]
    folders = _folder_classes(items, model)
    tasks = []
    for item in items:
        try:
            tasks.append(Task(item, _declared(item, model, folders) or _undeclared(targets)))
        except SessError as error:
            tasks.append(Task(item, error=str(error)))
    if all(task.error for task in tasks):
        raise SessError(f"no image has a label that {model.name} knows, the first: {tasks[0].error}")
    return tasks


def label_classes(annotations: Annotations, class_map: str | None, model: Model) -> dict[str, tuple[int, ...]]:
    """Return which classes of the model each label of the annotations means; none for some.

    Parameters
    ----------
    annotations : Annotations
    class_map : str or None
        URL of a `ClassMap`; without it labels are class indices, names or WordNet ids.
    model : Model

    Raises
    ------
    SessError
        If the model knows none of the labels.
    """
    known = ClassMap.read(class_map) if class_map else ClassMap()
    classes = {label: known.classes(label, model.class_index) for label in annotations.labels()}
    if not any(classes.values()):
        named = ", ".join(map(repr, list(classes)[:3])) or "there are none"
        raise SessError(f"{model.name} knows no label of {annotations.source} ({named}): give a --class-map")
    return classes


def annotated(
    items: Sequence[Item], annotations: Annotations, classes: Mapping[str, tuple[int, ...]], model: Model
) -> list[Task]:
    """Take the classes to explain of each image from annotations; of several that a label means, the model chooses.

    Returns
    -------
    list of Task
        An image without a label that the model knows has an error instead of targets.
    """
    tasks = []
    for item in items:
        found = annotations.find(item.image_id)
        labels = dict.fromkeys(thing.label for thing in found.objects) if found else ()
        targets = [classes[label] for label in labels if classes[label]]
        if found is None:
            tasks.append(Task(item, error="the image is not annotated"))
        elif not targets:
            named = ", ".join(labels) or "nothing"
            tasks.append(Task(item, error=f"annotated is {named}, no class of {model.name}"))
        else:
            tasks.append(Task(item, targets))
    if all(task.error for task in tasks):
        raise SessError(f"no image has an annotation that {model.name} knows, the first: {tasks[0].error}")
    return tasks


def _declared(item: Item, model: Model, folders: dict[str, int]) -> str | list[tuple[int, ...]] | None:
    """Return the targets that an image comes with: those of the manifest, else its label."""
    if item.targets:
        if len(item.targets) == 1 and is_top(item.targets[0]):
            return item.targets[0]
        return [(index,) for index in dict.fromkeys(model.class_index(name) for name in item.targets)]
    if item.label is not None:
        return [(folders[item.label] if item.label in folders else model.class_index(item.label),)]
    return None


def _undeclared(targets: str) -> str:
    if targets == "label":
        raise SessError("the image has no label")
    return "top1"


def _named(targets: str, model: Model) -> list[int]:
    try:
        return [model.class_index(targets)]  # a name may hold a comma itself
    except SessError:
        names = [name for name in targets.split(",") if name.strip()]
        if not names:
            raise
        return list(dict.fromkeys(model.class_index(name) for name in names))


def _folder_classes(items: Sequence[Item], model: Model) -> dict[str, int]:
    """Return torchvision's ImageFolder rule (sorted folders are the classes) where the names themselves say nothing."""
    labels = sorted({item.label for item in items if item.label is not None})
    if len(labels) != model.num_classes or any(label.isdigit() for label in labels):
        return {}
    known = {name.lower() for name in model.classes} | set(model.aliases)
    return {} if any(label.lower() in known for label in labels) else {label: i for i, label in enumerate(labels)}
