"""The export job: a Ray Data graph from stored maps to labels for training.

files of maps         a table in the driver, one block a file
  -> label            CPU tasks; label images, and what COCO says of each map
annotations.json      in the driver
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.errors import SessError
from sess_ray.io.access import Access, public, public_command, use
from sess_ray.io.inputs import IMAGE_EXTENSIONS
from sess_ray.io.store import Store, digest, map_of
from sess_ray.labels import Thresholds, as_coco, label_image
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.cluster.rows import Row, tables
from sess_ray.pipeline.cluster.session import ARROW, TASK_CPUS, arriving, connect
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.export.config import ExportConfig

EXPORT = ("SegmentationClass", "ImageSets", "labels.txt", "annotations.json", "export.json")
LEFT_OUT = ("empty", "damaged", "unlikely")  # maps that give no label
CHOSEN_BY = {"mask": "mask_iou", "box": "max_box_acc"}  # threshold -> the metric that is best there
# A name that can be a file below the output as it is: no step up, nothing hidden, nothing that a shell would mind.
_HARMLESS = re.compile(r"(?!.*\.\.)[\w-][\w. -]*(/[\w-][\w. -]*)*", re.ASCII)


@dataclass
class Export:
    """An export that has been checked and can start.

    Attributes
    ----------
    config : ExportConfig
    thresholds : Thresholds
    classes : dict of int to (int, str)
        Target to its number in the labels, from 1, and its name.
    blocks : list of pa.Table
        Of `FILES`.
    store : Store
    """

    config: ExportConfig
    thresholds: Thresholds
    classes: dict[int, tuple[int, str]]
    blocks: list[pa.Table]
    store: Store


FILES = pa.schema(
    [("file", pa.string()), ("image_ids", pa.list_(pa.string())), ("names", pa.list_(pa.string()))]  # of a file of maps
)
LABELLED = pa.schema(
    [
        ("image_id", pa.string()),
        ("name", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("objects", pa.list_(pa.string())),
        ("empty", pa.int64()),
        ("damaged", pa.int64()),
        ("unlikely", pa.int64()),
    ]
)


def prepare(config: ExportConfig) -> Export:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    if (config.threshold is None) == (config.evaluation is None):
        raise SessError("give either --threshold or --evaluation, which has the best one")
    stored, store = Store(config.run), Store(config.output)
    files = stored.tables("maps")
    if not files:
        raise SessError(f"--run {public(config.run)} has no maps: give the --output of explain_dataset.py")
    if not config.overwrite and store.is_used(EXPORT):
        raise SessError(f"output {public(store.url)} has labels already: add --overwrite, or choose another --output")
    if config.evaluation is not None:
        thresholds = best_thresholds(Store(config.evaluation), config.run)
    else:
        assert config.threshold is not None
        thresholds = Thresholds(config.threshold, config.threshold)
    tables = stored.read_tables(files, ["image_id", "target", "target_name"])
    targets = dict(sorted((row["target"], row["target_name"]) for table in tables for row in _targets(table)))
    classes = {target: (number, name) for number, (target, name) in enumerate(targets.items(), 1)}
    ids = [table["image_id"].unique().to_pylist() for table in tables]
    names = file_names(image_id for found in ids for image_id in found)
    blocks = [
        pa.table({"file": [file], "image_ids": [found], "names": [[names[image_id] for image_id in found]]}, FILES)
        for file, found in zip(files, ids, strict=True)
    ]
    store.check_writable()
    return Export(config, thresholds, classes, blocks, store)


def _targets(table: pa.Table) -> list[dict[str, Any]]:
    return table.group_by(["target", "target_name"]).aggregate([]).to_pylist()


def best_thresholds(evaluation: Store, run: str) -> Thresholds:
    """Return where the maps of a run fit best what is annotated.

    Parameters
    ----------
    evaluation : Store
        Of `sess_ray.pipeline.evaluate.job`.
    run : str
        The URL that was evaluated.

    Raises
    ------
    SessError
        If the evaluation is not of this run, or has neither mask_iou nor max_box_acc.
    """
    results = results_of(evaluation, run)
    best: dict[str, float] = {}
    for kind, metric in CHOSEN_BY.items():
        curves = results[metric].drop_null().to_pylist() if metric in results.column_names else []
        if curves:
            thresholds = SUITE[metric].make().thresholds  # type: ignore[attr-defined]
            best[kind] = thresholds[int(np.mean(curves, 0).argmax())]
    if not best:
        wanted = " or ".join(CHOSEN_BY.values())
        raise SessError(f"--evaluation {public(evaluation.url)} has no {wanted}: evaluate with --annotations")
    return Thresholds(mask=best.get("mask", best.get("box", 0.0)), box=best.get("box", best.get("mask", 0.0)))


def file_names(image_ids: Iterator[str]) -> dict[str, str]:
    """Return a name for the label image of each image: its path without extension, wherever that will do.

    Images of the same name but for the extension keep theirs; a name that is not harmless, or there twice, becomes
    another.

    Examples
    --------
    >>> file_names(iter(["a/b.jpg", "c.jpg", "c.png", "../d.jpg"]))
    {'a/b.jpg': 'a/b', 'c.jpg': 'c.jpg', 'c.png': 'c.png', '../d.jpg': 'image-2d1f881c407e810f3058'}
    """
    names = {}
    for image_id in image_ids:
        stem, dot, extension = image_id.rpartition(".")
        names[image_id] = stem if dot and f".{extension.lower()}" in IMAGE_EXTENSIONS else image_id
    names = {image_id: image_id if again else name for image_id, name, again in _marked(names)}
    return {
        image_id: name if _HARMLESS.fullmatch(name) and not again else f"image-{digest([image_id])}"
        for image_id, name, again in _marked(names)
    }


def _marked(names: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Yield images and names, and whether others have the same one, capitals or not: some file systems do not care."""
    times = Counter(name.lower() for name in names.values())
    return ((image_id, name, times[name.lower()] > 1) for image_id, name in names.items())


def label(
    table: pa.Table,
    access: Access,
    run: str,
    output: str,
    thresholds: Thresholds,
    classes: dict[int, tuple[int, str]],
    min_score: float,
) -> Iterator[pa.Table]:
    """Write the label images of one file of maps; yield a row an image with what COCO says of its maps."""
    use(access)
    [block] = table.to_pylist()
    yield from tables(_labelled(block, Store(run), Store(output), thresholds, classes, min_score), LABELLED)


def _labelled(
    block: Row,
    run: Store,
    store: Store,
    thresholds: Thresholds,
    classes: dict[int, tuple[int, str]],
    min_score: float,
) -> Iterator[Row]:
    names = dict(zip(block["image_ids"], block["names"], strict=True))
    images: dict[str, list[dict[str, Any]]] = {}
    for row in run.read_table(block["file"]).to_pylist():
        images.setdefault(row["image_id"], []).append(row)
    for image_id, rows in images.items():
        likely = [row for row in rows if row["score"] >= min_score]
        maps = [(row, map_of(row)) for row in sorted(likely, key=lambda row: -row["score"])]
        objects, seen = [], []
        for row, saliency in maps:
            number, _ = classes[row["target"]]
            found = None if saliency is None else as_coco(saliency, thresholds)
            if saliency is not None and found:
                objects.append(json.dumps({"category_id": number, "score": row["score"], **found}))
                seen.append((number, saliency))
        if seen:
            picture = label_image(seen, thresholds.mask, len(classes))
            store.write(f"SegmentationClass/{names[image_id]}.png", picture)
        result = {"image_id": image_id, "name": names[image_id], "height": rows[0]["height"], "width": rows[0]["width"]}
        damaged = sum(saliency is None for _, saliency in maps)
        counts = {"empty": len(maps) - len(objects) - damaged, "damaged": damaged, "unlikely": len(rows) - len(maps)}
        yield {**result, "objects": objects, **counts}


def run(export: Export, progress: Any = None) -> Counter[str]:
    """Run an export to its end: label images, annotations.json in COCO's layout, and, last, export.json.

    Parameters
    ----------
    export : Export
    progress : callable, optional
        Called with the number of maps of each image.

    Returns
    -------
    Counter
        Of images and objects; of maps that show nothing, are damaged, or are below `min_score`.
    """
    import ray

    config, store = export.config, export.store
    connect(config.address)
    store.clear(EXPORT)
    given = {
        "run": Store(config.run).location,
        "output": store.location,
        "thresholds": export.thresholds,
        "classes": export.classes,
    }
    given |= {"access": config.access(), "min_score": config.min_score}
    dataset = ray.data.from_blocks(export.blocks).map_batches(label, fn_kwargs=given, **ARROW, num_cpus=TASK_CPUS)
    rows: list[dict[str, Any]] = []
    for row in arriving(dataset):
        rows.append(row)
        if progress:
            progress(len(row["objects"]) + sum(row[name] for name in LEFT_OUT))
    rows.sort(key=lambda row: row["image_id"])
    labelled = [row for row in rows if row["objects"]]
    counts = Counter(
        images=len(labelled),
        objects=sum(len(row["objects"]) for row in rows),
        **{name: sum(row[name] for row in rows) for name in LEFT_OUT},
    )
    store.write("annotations.json", as_json(labelled, export.classes).encode())
    names = ["__background__", *(name for _, name in export.classes.values())]
    store.write("labels.txt", "".join(f"{name}\n" for name in names).encode())
    store.write("ImageSets/Segmentation/train.txt", "".join(f"{row['name']}\n" for row in labelled).encode())
    record = {
        "config": config.public(),
        "thresholds": vars(export.thresholds),
        "counts": dict(counts),
        "versions": {name: version(name) for name in ("sess-ray", "numpy", "pillow")},
        "command": public_command(sys.argv),
    }
    store.write_json("export.json", record)
    return counts


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
