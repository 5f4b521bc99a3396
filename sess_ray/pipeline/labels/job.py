"""The job of pseudo-labels: a Ray Data graph from stored maps to labels for training.

files of maps         a table in the driver, one block a file
  -> label            CPU tasks; label images and XML, and what COCO says of each object
annotations.json      in the driver
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import islice
from typing import Any

from sess_ray.access import public_command
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.output import versions
from sess_ray.pipeline.cluster.session import ARROW, TASK_CPUS, arriving, connect
from sess_ray.pipeline.labels.prepare import LABELS, Labelling
from sess_ray.pipeline.labels.stages import LEFT_OUT, label
from sess_ray.refinement import opencv

ERRORS = 100  # images that export.json names


def run(labelling: Labelling, progress: Any = None) -> Counter[str]:
    """Label a run to its end: label images, annotations.json in COCO's layout, and, last, export.json.

    Parameters
    ----------
    labelling : Labelling
    progress : callable, optional
        Called with the number of maps of each image.

    Returns
    -------
    Counter
        Numbers of maps, images and objects; of objects that lie wholly under others in the label images (covered); of
        maps that could not be refined, and of those that show nothing (empty), are damaged or are below `min_score`
        (unlikely).
    """
    import ray

    config, store = labelling.config, labelling.store
    connect(config.address)
    store.clear(LABELS)
    given = {"access": config.access(), "run": Store(config.run).location, "output": store.location}
    given |= {"recipe": labelling.recipe}
    cpus = TASK_CPUS if labelling.recipe.refinement is None else 1  # a refinement computes longer than it waits
    dataset = ray.data.from_blocks(labelling.blocks).map_batches(label, fn_kwargs=given, **ARROW, num_cpus=cpus)
    rows: list[dict[str, Any]] = []
    for row in arriving(dataset):
        rows.append(row)
        if progress:
            progress(row["maps"])
    rows.sort(key=lambda row: row["image_id"])
    labelled = [row for row in rows if row["objects"]]
    counts = Counter(
        images=len(labelled),
        objects=sum(len(row["objects"]) for row in rows),
        **{name: sum(row[name] for row in rows) for name in ("maps", "covered", "unrefined", *LEFT_OUT)},
    )
    errors = {row["image_id"]: row["error"] for row in rows if row["error"]}
    _write(labelling, labelled, counts, errors)
    return counts


def _write(labelling: Labelling, labelled: list[dict[str, Any]], counts: Counter[str], errors: dict[str, str]) -> None:
    store, classes = labelling.store, labelling.recipe.classes
    store.write("annotations.json", as_json(labelled, classes).encode())
    names = ["__background__", *(name for _, name in classes.values())]
    store.write("labels.txt", "".join(f"{name}\n" for name in names).encode())
    for kind in ("Main", "Segmentation"):
        store.write(f"ImageSets/{kind}/train.txt", "".join(f"{row['name']}\n" for row in labelled).encode())
    refined = labelling.recipe.refinement
    known = versions("sess-ray", "numpy", "pillow")
    if refined:
        known["opencv"] = opencv().__version__
    record = {
        "config": labelling.config.public(),
        "threshold": labelling.recipe.threshold,
        "min_score": labelling.recipe.min_score,
        "min_part": labelling.recipe.min_part,
        "refinement": refined and {"name": labelling.config.refine, **vars(refined)},
        "counts": dict(counts),
        "unreadable_images": dict(islice(errors.items(), ERRORS)),
        "versions": known,
        "command": public_command(sys.argv),
    }
    store.write_json("export.json", record)


def as_json(rows: list[dict[str, Any]], classes: dict[int, tuple[int, str]]) -> str:
    """Return the rows of images as COCO's instances JSON."""
    images = [
        {"id": number, "file_name": row["image_id"], "height": row["height"], "width": row["width"]}
        for number, row in enumerate(rows, 1)
    ]
    objects = [(number, json.loads(text)) for number, row in enumerate(rows, 1) for text in row["objects"]]
    annotations = [{"id": place, "image_id": number, **found} for place, (number, found) in enumerate(objects, 1)]
    categories = [{"id": number, "name": name, "target": target} for target, (number, name) in classes.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})
