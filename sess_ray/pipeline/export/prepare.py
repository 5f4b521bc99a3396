"""What is checked and known of an export before it starts: threshold, classes, and the names of files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.errors import SessError
from sess_ray.io.access import public, use
from sess_ray.io.inputs import IMAGE_EXTENSIONS
from sess_ray.io.store import Store, digest
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.stages import FILES, Recipe

EXPORT = (
    *("SegmentationClass", "SegmentationObject", "Annotations", "ImageSets"),
    *("labels.txt", "annotations.json", "export.json"),
)
CHOOSING = ("mask_iou", "max_box_acc")  # metrics that are best at some threshold; the first one there counts
# A name that can be a file below the output as it is: no step up, nothing hidden, nothing that a shell would mind.
_HARMLESS = re.compile(r"(?!.*\.\.)[\w-][\w. -]*(/[\w-][\w. -]*)*", re.ASCII)


@dataclass
class Export:
    """An export that has been checked and can start.

    Attributes
    ----------
    config : ExportConfig
    recipe : Recipe
    blocks : list of pa.Table
        Of `FILES`.
    store : Store
    """

    config: ExportConfig
    recipe: Recipe
    blocks: list[pa.Table]
    store: Store


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
    files = map_files(stored, f"--run {public(config.run)}")
    refuse_used(store, EXPORT, "labels", overwrite=config.overwrite)
    threshold = config.threshold
    if threshold is None:
        assert config.evaluation is not None
        threshold = best_threshold(Store(config.evaluation), config.run)
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
    recipe = Recipe(classes, threshold, config.instances, config.min_part, config.min_score)
    return Export(config, recipe, blocks, store)


def _targets(table: pa.Table) -> list[dict[str, Any]]:
    return table.group_by(["target", "target_name"]).aggregate([]).to_pylist()


def best_threshold(evaluation: Store, run: str) -> float:
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
    for metric in CHOOSING:
        curves = results[metric].drop_null().to_pylist() if metric in results.column_names else []
        if curves:
            thresholds: list[float] = SUITE[metric].make().thresholds  # type: ignore[attr-defined]
            return thresholds[int(np.mean(curves, 0).argmax())]
    wanted = " or ".join(CHOOSING)
    raise SessError(f"--evaluation {public(evaluation.url)} has no {wanted}: evaluate with --annotations")


def file_names(image_ids: Iterable[str]) -> dict[str, str]:
    """Return a name for the label image of each image: its path without extension, wherever that will do.

    Images of the same name but for the extension keep theirs; a name that is not harmless, or there twice, becomes
    another.

    Examples
    --------
    >>> file_names(["a/b.jpg", "c.jpg", "c.png", "../d.jpg"])
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
