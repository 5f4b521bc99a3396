"""COCO's annotations of instances, as exporters write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sess_ray.errors import SessError
from sess_ray.io.annotation_values import add_object, image_of, is_marked, text_of
from sess_ray.io.annotations import Annotation, Annotations


def is_coco(document: dict[str, Any]) -> bool:
    """Say whether a JSON object has COCO's lists."""
    return all(isinstance(document.get(key), list) for key in ("images", "annotations"))


def read_coco(found: Annotations, document: dict[str, Any]) -> None:
    """Read COCO instances; ids are compared as text, so that 7, 7.0 and "7" are one.

    Raises
    ------
    SessError
        If nothing says what the objects are: captions, panoptic segments, no categories.
    """
    objects = document["annotations"]
    _refuse_other_kinds(found.source, objects)
    categories = document.get("categories")
    names, several = _names(found, categories)
    if objects and not names and not several:
        raise SessError(
            f"{found.source} names no categories, so its {len(objects)} annotations are of nothing:"
            ' give it "categories": [{"id": ..., "name": ...}]'
        )
    images = _images(found, document)
    for number, entry in enumerate(objects):
        place = f"annotations[{number}]"
        if not isinstance(entry, dict):
            found.problems.append((place, f"is no object: {str(entry)[:40]}"))
            continue
        if _key(entry.get("id")) is not None:
            place = f"annotation {entry['id']}"
        owner = _key(entry.get("image_id"))
        image = images.get(owner) if owner is not None else None
        if image is None:
            what = "an id that several images have" if owner in images else "an image that is not listed"
            found.problems.append((place, f"is of {what}: {str(entry.get('image_id'))[:40]}"))
            continue
        category = _key(entry.get("category_id"))
        fault = "with several names" if category in several else "without a name"
        add_object(
            found,
            image,
            names.get(category) if category is not None else None,
            entry.get("bbox"),
            "coco",
            entry.get("segmentation"),
            crowd=is_marked(entry.get("iscrowd")),
            unlabelled=f"an object of a category {fault}: {str(entry.get('category_id'))[:40]}",
        )


def _names(found: Annotations, categories: object) -> tuple[dict[str, str], set[str]]:
    """Return the names of categories by their ids; and the ids that have several names, and so none."""
    names: dict[str, set[str]] = {}
    for key, entry in _records(found, categories, "categories"):
        name = text_of(entry.get("name"))
        names.setdefault(key, set()).update([name] if name else [])
    return (
        {key: min(given) for key, given in names.items() if len(given) == 1},
        {key for key, given in names.items() if len(given) > 1},
    )


def _refuse_other_kinds(source: str, objects: list[Any]) -> None:
    first = next((entry for entry in objects if isinstance(entry, dict)), {})
    kinds = (("segments_info", "panoptic segments"), ("caption", "captions"))
    kind = next((kind for key, kind in kinds if key in first and "category_id" not in first), None)
    if kind:
        raise SessError(f"{source} holds COCO's {kind}: give the file of instances")


def _images(found: Annotations, document: dict[str, Any]) -> dict[str, Annotation | None]:
    """Return the images by their ids; None for an id that several have."""
    images: dict[str, Annotation | None] = {}
    owners: dict[str, list[str]] = {}
    for key, entry in _records(found, document["images"], "images"):
        given = entry.get("file_name")
        name = text_of(given) if isinstance(given, str | int) else None
        if name is None:
            found.problems.append((f"image {entry['id']}", "has no file_name"))
            continue
        image = images[key] = image_of(found, name, entry)
        if image.image_id not in owners.setdefault(key, []):
            owners[key].append(image.image_id)
    for key, names in owners.items():
        if len(names) > 1:
            images[key] = None
            found.problems += [(name, f"has an id that {len(names)} images have: {key}") for name in names]
    return images


def _records(found: Annotations, entries: object, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a list of COCO's that are objects with an id, each with it."""
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        name = _key(entry.get("id")) if isinstance(entry, dict) else None
        if name is None:
            found.problems.append((f"{key}[{number}]", "is no object with an id"))
        else:
            yield name, entry


def _key(value: object) -> str | None:
    """Return an id as text, in which 7, 7.0 and "7" are one; None for what is none."""
    match value:
        case bool():
            return None
        case float() if value.is_integer():
            return str(int(value))
        case int() | str():
            return str(value).strip() or None
    return None
