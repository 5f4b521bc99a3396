"""What is checked and known of a run's labels before they are made: threshold, classes, and the names of files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.file_parts import PARTS, Known, parts_of
from sess_ray.io.moved import Moved
from sess_ray.io.store import FINISHED, STARTED, Store
from sess_ray.metrics.suite import SUITE
from sess_ray.metrics.thresholds import AtThresholds
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.labels.config import MIN_PART, MIN_SCORE_GIVEN, MIN_SCORE_PREDICTED, THRESHOLD, LabelsConfig
from sess_ray.pipeline.labels.stages import Recipe
from sess_ray.refinement import refinement

LABELS = (
    *("SegmentationClass", "SegmentationObject", "Annotations", "ImageSets"),
    *("labels.txt", "annotations.json", "labels.json", "export.json"),  # the last is an older name of the record
)
CHOOSING = ("mask_iou", "max_box_acc")  # metrics that are best at some threshold; the first one there counts


@dataclass
class Labelling:
    """Pseudo-labels of a run: checked, and ready to be made.

    Attributes
    ----------
    config : LabelsConfig
    recipe : Recipe
    blocks : list of pa.Table
        Rows of `PARTS`, one in each.
    known : (Names, Moved or None)
        What images are called as files, and where they are now.
    store : Store
    """

    config: LabelsConfig
    recipe: Recipe
    blocks: list[pa.Table]
    known: Known
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
    targets: set[tuple[int, str]] = set()

    def noted(table: pa.Table) -> None:
        targets.update((row["target"], row["target_name"]) for row in _targets(table))

    parts, names = parts_of(stored, files, ["target", "target_name"], noted)
    classes = {target: (number, name) for number, (target, name) in enumerate(dict(sorted(targets)).items(), 1)}
    store.check_writable()
    min_score = default_min_score(stored) if config.min_score is None else config.min_score
    min_part = (MIN_PART if config.instances else 0.0) if config.min_part is None else config.min_part
    recipe = Recipe(classes, threshold, config.instances, min_part, min_score, refined, config.max_pixels)
    blocks = [pa.Table.from_pylist([part], PARTS) for part in parts]
    return Labelling(config, recipe, blocks, (names, Moved(config.images) if config.images else None), store)


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
