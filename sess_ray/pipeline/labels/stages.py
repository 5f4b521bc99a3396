"""The stage of labelling: from a file of maps, and the pixels of their images, to label images and objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.access import Access, one_line, use
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.file_parts import Known, images_in
from sess_ray.io.maps import map_of
from sess_ray.io.reading import stream_items
from sess_ray.io.store import Store
from sess_ray.labels import Labelled, as_coco, as_voc, label_image, objects_of, shown
from sess_ray.metrics.localization import reaches
from sess_ray.pipeline.cluster.rows import Row, fetched, tables
from sess_ray.refinement import Refinement

# Maps that give no object.
LEFT_OUT = ("empty", "damaged", "unlikely")
LABELLED = pa.schema(
    [
        ("image_id", pa.string()),
        ("name", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("maps", pa.int64()),
        ("objects", pa.list_(pa.string())),  # JSON
        ("covered", pa.int64()),
        ("unrefined", pa.int64()),
        ("error", pa.string()),  # why the image's pixels are not there
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
        As in `LabelsConfig`.
    refinement : Refinement or None
    max_pixels : int
        Size of an image that is read for its refinement.
    """

    classes: dict[int, tuple[int, str]]
    threshold: float
    instances: bool
    min_part: float
    min_score: float
    refinement: Refinement | None
    max_pixels: int

    def likely(self, row: Row) -> bool:
        """Say whether the target of a map has the probability that is asked for."""
        return bool(row["score"] >= self.min_score)


def label(table: pa.Table, access: Access, run: str, output: str, recipe: Recipe, known: Any) -> Iterator[pa.Table]:
    """Write the label images of a part of a file of maps; yield a row an image with what COCO says of its maps."""
    use(access)
    [part] = table.to_pylist()
    yield from tables(_labelled(part, Store(run), Store(output), recipe, fetched(known)), LABELLED)


def _labelled(part: Row, run: Store, store: Store, recipe: Recipe, known: Known) -> Iterator[Row]:
    for images, uris in images_in(part, run, known):
        for image_id, pixels in _with_pixels(images, uris, recipe):
            rows = images[image_id]
            name = known[0].of(image_id)
            objects, counts = objects_in(rows, recipe, pixels if isinstance(pixels, np.ndarray) else None)
            if objects:
                counts["covered"] = _write(store, name, image_id, objects, recipe.classes)
            yield {
                "image_id": image_id,
                "name": name,
                "height": rows[0]["height"],
                "width": rows[0]["width"],
                "maps": len(rows),
                "objects": [_as_json(entry) for entry in objects],
                "error": one_line(pixels) if isinstance(pixels, Exception) else None,
                **{kind: counts[kind] for kind in ("covered", "unrefined", *LEFT_OUT)},
            }


def _with_pixels(
    images: dict[str, list[Row]], uris: dict[str, str], recipe: Recipe
) -> Iterator[tuple[str, np.ndarray | Exception | None]]:
    """Yield each image with its pixels, (H, W, 3) uint8, or why they are not there; with None where none are needed."""
    needed = [image_id for image_id, rows in images.items() if recipe.refinement and any(map(recipe.likely, rows))]
    yield from ((image_id, None) for image_id in images if image_id not in needed)
    for number, content in stream_items([uris[image_id] for image_id in needed]):
        image_id = needed[number]
        try:
            if isinstance(content, Exception):
                raise content
            pixels = decode(content, recipe.max_pixels)
            known = images[image_id][0]["height"], images[image_id][0]["width"]
            if pixels.shape[:2] != known:
                found = " x ".join(map(str, pixels.shape[1::-1]))
                raise SessError(f"the image has {found} pixels now, its map is of {known[1]} x {known[0]}")
        except Exception as error:
            yield image_id, error
        else:
            yield image_id, pixels


def objects_in(rows: list[Row], recipe: Recipe, pixels: np.ndarray | None) -> tuple[list[Labelled], Counter[str]]:
    """Return the objects of an image, the likeliest first, and how many of its maps are `LEFT_OUT` or not refined.

    Parameters
    ----------
    rows : list of dict
        Rows of maps/.
    recipe : Recipe
    pixels : ndarray (H, W, 3) uint8, or None
        Without them no mask is refined.
    """
    found: list[Labelled] = []
    counts: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: -row["score"]):
        if not recipe.likely(row):
            counts["unlikely"] += 1
            continue
        saliency = map_of(row)
        if saliency is None:
            counts["damaged"] += 1
            continue
        mask = reaches(saliency, recipe.threshold)
        if mask.any() and recipe.refinement:
            if pixels is None:
                counts["unrefined"] += 1
            else:
                mask = recipe.refinement(pixels, saliency, recipe.threshold)
        masks = objects_of(mask, instances=recipe.instances, min_part=recipe.min_part)
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
