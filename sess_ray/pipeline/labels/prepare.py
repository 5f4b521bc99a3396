"""What is checked and known of a run's labels before they are made: threshold, classes, and the names of files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.inputs import find_images
from sess_ray.io.items import IMAGE_EXTENSIONS
from sess_ray.io.store import FINISHED, STARTED, Store, digest
from sess_ray.metrics.suite import SUITE
from sess_ray.metrics.thresholds import AtThresholds
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.labels.config import MIN_PART, MIN_SCORE_GIVEN, MIN_SCORE_PREDICTED, THRESHOLD, LabelsConfig
from sess_ray.pipeline.labels.stages import FILES, Recipe
from sess_ray.refinement import refinement

LABELS = (
    *("SegmentationClass", "SegmentationObject", "Annotations", "ImageSets"),
    *("labels.txt", "annotations.json", "export.json"),
)
CHOOSING = ("mask_iou", "max_box_acc")  # metrics that are best at some threshold; the first one there counts
# A name that can be a file below the output as it is: no step up, nothing hidden, nothing that a shell would mind.
_HARMLESS = re.compile(r"(?!.*\.\.)[\w-][\w. -]*(/[\w-][\w. -]*)*", re.ASCII)


@dataclass
class Labelling:
    """Pseudo-labels of a run: checked, and ready to be made.

    Attributes
    ----------
    config : LabelsConfig
    recipe : Recipe
    blocks : list of pa.Table
        Rows of `FILES`.
    store : Store
    """

    config: LabelsConfig
    recipe: Recipe
    blocks: list[pa.Table]
    store: Store


def prepare(config: LabelsConfig) -> Labelling:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    stored, store = Store(config.run), Store(config.output)
    files = map_files(stored, f"--run {public(config.run)}")
    refuse_used(store, LABELS, "labels", overwrite=config.overwrite)
    threshold = THRESHOLD if config.threshold is None else config.threshold
    if config.evaluation is not None:
        threshold = best_threshold(Store(config.evaluation), config.run)
    refined = refinement(config.refine, config.refine_options()) if config.refine else None
    tables = stored.read_tables(files, ["image_id", "uri", "target", "target_name"])
    targets = dict(sorted((row["target"], row["target_name"]) for table in tables for row in _targets(table)))
    classes = {target: (number, name) for number, (target, name) in enumerate(targets.items(), 1)}
    store.check_writable()
    min_score = default_min_score(stored) if config.min_score is None else config.min_score
    min_part = (MIN_PART if config.instances else 0.0) if config.min_part is None else config.min_part
    recipe = Recipe(classes, threshold, config.instances, min_part, min_score, refined, config.max_pixels)
    return Labelling(config, recipe, _blocks(files, tables, config.images), store)


def _blocks(files: list[str], tables: list[pa.Table], images: str | None) -> list[pa.Table]:
    """Return a table of `FILES` for each file of maps."""
    moved = {item.image_id: item.uri for item in find_images(images)} if images else {}
    # The images of each file, in its order; all rows of one say the same URI.
    found = [dict(zip(*(table[name].to_pylist() for name in ("image_id", "uri")), strict=True)) for table in tables]
    names = file_names(image_id for uris in found for image_id in uris)
    return [
        pa.table(
            {
                "file": [file],
                "image_ids": [list(uris)],
                "names": [[names[image_id] for image_id in uris]],
                "uris": [[moved.get(image_id, uri) for image_id, uri in uris.items()]],
            },
            FILES,
        )
        for file, uris in zip(files, found, strict=True)
    ]


def _targets(table: pa.Table) -> list[dict[str, Any]]:
    return table.group_by(["target", "target_name"]).aggregate([]).to_pylist()


def default_min_score(run: Store) -> float:
    """Return from which probability of its target on a map makes a label worth having.

    Where the model itself has said what is in an image, a low probability means that this is wrong; where somebody else
    has, only that the map shows little.
    """
    settings = (run.read_json(FINISHED) or run.read_json(STARTED) or {}).get("config", {})
    targets = settings.get("targets", "auto")
    predicted = re.fullmatch(r"top\d+|auto|\s*p\s*>.*", targets) and not settings.get("annotations")
    return MIN_SCORE_PREDICTED if predicted else MIN_SCORE_GIVEN


def best_threshold(evaluation: Store, run: str) -> float:
    """Return where the maps of a run fit best what is annotated.

    Parameters
    ----------
    evaluation : Store
        What `sess_ray.pipeline.evaluate.job` has written.
    run : str
        The URL that was evaluated.

    Raises
    ------
    SessError
        If the evaluation is not of this run, or has neither mask_iou nor max_box_acc.
    """
    columns, chunks = results_of(evaluation, run)
    for name in CHOOSING:
        metric = SUITE[name].make()
        if name not in columns or not isinstance(metric, AtThresholds):
            continue
        total, count = np.zeros(len(metric.thresholds)), 0
        for table in chunks([name]):
            curves = table[name].drop_null()
            total += np.sum(curves.to_pylist(), 0) if len(curves) else 0.0
            count += len(curves)
        if count:
            return metric.best_at(total / count)
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
