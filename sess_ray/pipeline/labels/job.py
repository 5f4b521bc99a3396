"""The job of pseudo-labels: a Ray Data graph from stored maps to labels for training.

files of maps         a line in the driver for each, or for a part of one
  -> label            CPU tasks; label images and XML, and what COCO says of each object
annotations.json      in the driver, which sorts what has come on a disk
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

from sess_ray.access import public_command
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.output import versions
from sess_ray.pipeline.cluster.session import ARROW, TASK_CPUS, arriving, connect
from sess_ray.pipeline.labels.coco import Sorted, write_coco
from sess_ray.pipeline.labels.prepare import LABELS, Labelling
from sess_ray.pipeline.labels.stages import LEFT_OUT, label
from sess_ray.refinement import opencv

ERRORS = 100  # images that labels.json names


def run(labelling: Labelling, progress: Any = None) -> Counter[str]:
    """Label a run to its end: label images, annotations.json in COCO's layout, and, last, labels.json.

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
    given |= {"recipe": labelling.recipe, "known": ray.put(labelling.known)}
    cpus = TASK_CPUS if labelling.recipe.refinement is None else 1  # a refinement computes longer than it waits
    dataset = ray.data.from_blocks(labelling.blocks).map_batches(label, fn_kwargs=given, **ARROW, num_cpus=cpus)
    with Sorted("image_id") as rows:
        for row in arriving(dataset):
            rows.add(row)
            if progress:
                progress(row["maps"])
        return finish(labelling, rows)


def finish(labelling: Labelling, rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Write what is said of all images; return what `run` does.

    Parameters
    ----------
    labelling : Labelling
    rows : iterable of dict
        Rows of `LABELLED`, in the order of their images.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("images", "objects", "maps", "covered", "unrefined", *LEFT_OUT), 0))
    errors: dict[str, str] = {}

    def labelled() -> Iterator[dict[str, Any]]:
        for row in rows:
            counts.update({name: row[name] for name in ("maps", "covered", "unrefined", *LEFT_OUT)})
            counts["images"] += bool(row["objects"])
            counts["objects"] += len(row["objects"])
            if row["error"] and len(errors) < ERRORS:
                errors[row["image_id"]] = row["error"]
            if row["objects"]:
                yield row

    store, classes = labelling.store, labelling.recipe.classes
    with TemporaryDirectory() as folder:
        annotations, train = (os.path.join(folder, name) for name in ("annotations.json", "train.txt"))
        write_coco(labelled(), classes, annotations, train)
        store.put("annotations.json", annotations)
        for kind in ("Main", "Segmentation"):
            store.put(f"ImageSets/{kind}/train.txt", train)
    names = ["__background__", *(name for _, name in classes.values())]
    store.write("labels.txt", "".join(f"{name}\n" for name in names).encode())
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
        "unreadable_images": errors,
        "versions": known,
        "command": public_command(sys.argv),
    }
    store.write_json("labels.json", record)
    return counts
