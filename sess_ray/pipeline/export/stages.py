"""The stage of an export: from a file of maps to label images, and what COCO says of each object."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.io.access import Access, use
from sess_ray.io.maps import map_of
from sess_ray.io.store import Store
from sess_ray.labels import Labelled, as_coco, as_voc, label_image, objects_of, shown
from sess_ray.metrics.localization import reaches
from sess_ray.pipeline.cluster.rows import Row, tables

# Maps that give no object.
LEFT_OUT = ("empty", "damaged", "unlikely")
FILES = pa.schema(
    [("file", pa.string()), ("image_ids", pa.list_(pa.string())), ("names", pa.list_(pa.string()))]  # of a file of maps
)
LABELLED = pa.schema(
    [
        ("image_id", pa.string()),
        ("name", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("maps", pa.int64()),
        ("objects", pa.list_(pa.string())),  # JSON
        ("covered", pa.int64()),
        *((name, pa.int64()) for name in LEFT_OUT),
    ]
)


@dataclass(frozen=True)
class Recipe:
    """How a map becomes objects.

    Attributes
    ----------
    classes : dict of int to (int, str)
        Target to its number in the labels, from 1, and its name.
    threshold : float
    instances : bool
    min_part, min_score : float
        As in `ExportConfig`.
    """

    classes: dict[int, tuple[int, str]]
    threshold: float
    instances: bool
    min_part: float
    min_score: float


def label(table: pa.Table, access: Access, run: str, output: str, recipe: Recipe) -> Iterator[pa.Table]:
    """Write the label images of one file of maps; yield a row an image with what COCO says of its maps."""
    use(access)
    [block] = table.to_pylist()
    yield from tables(_labelled(block, Store(run), Store(output), recipe), LABELLED)


def _labelled(block: Row, run: Store, store: Store, recipe: Recipe) -> Iterator[Row]:
    names = dict(zip(block["image_ids"], block["names"], strict=True))
    images: dict[str, list[Row]] = {}
    for row in run.read_table(block["file"]).to_pylist():
        images.setdefault(row["image_id"], []).append(row)
    for image_id, rows in images.items():
        objects, counts = objects_in(rows, recipe)
        if objects:
            counts["covered"] = _write(store, names[image_id], image_id, objects, recipe.classes)
        yield {
            "image_id": image_id,
            "name": names[image_id],
            "height": rows[0]["height"],
            "width": rows[0]["width"],
            "maps": len(rows),
            "objects": [_as_json(entry) for entry in objects],
            **{name: counts[name] for name in ("covered", *LEFT_OUT)},
        }


def objects_in(rows: list[Row], recipe: Recipe) -> tuple[list[Labelled], Counter[str]]:
    """Return the objects of an image, the likeliest first, and how many of its maps are `LEFT_OUT`.

    Parameters
    ----------
    rows : list of dict
        Of maps/.
    recipe : Recipe
    """
    found: list[Labelled] = []
    counts: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: -row["score"]):
        if not row["score"] >= recipe.min_score:
            counts["unlikely"] += 1
            continue
        saliency = map_of(row)
        if saliency is None:
            counts["damaged"] += 1
            continue
        masks = objects_of(reaches(saliency, recipe.threshold), instances=recipe.instances, min_part=recipe.min_part)
        counts["empty"] += not masks
        number, _ = recipe.classes[row["target"]]
        found.extend(Labelled(number, mask, saliency, row["score"]) for mask in masks)
    return found, counts


def _write(store: Store, name: str, image_id: str, objects: list[Labelled], classes: dict[int, tuple[int, str]]) -> int:
    """Write what Pascal VOC has of an image; return how many objects lie wholly under others."""
    places, visible = shown(objects)
    numbers = np.array([0, *(entry.number for entry in visible)])
    names = dict(classes.values())
    store.write(f"SegmentationClass/{name}.png", label_image(numbers[places], len(classes)))
    store.write(f"SegmentationObject/{name}.png", label_image(places, len(visible)))
    store.write(f"Annotations/{name}.xml", as_voc(image_id, places, [names[entry.number] for entry in visible]))
    return len(objects) - len(visible)


def _as_json(entry: Labelled) -> str:
    found: dict[str, Any] = {"category_id": entry.number, "score": entry.score, **as_coco(entry.mask)}
    return json.dumps(found)
