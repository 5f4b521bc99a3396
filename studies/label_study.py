"""Masks of a run against annotated ones: which threshold, which refinement, from which score on.

Images are split in two by the order of their names. Parameters are chosen on one half and measured on the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from sess_ray import open_run
from sess_ray.cli import command
from sess_ray.errors import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import ClassMap
from sess_ray.io.regions import region
from sess_ray.metrics.localization import reaches
from sess_ray.metrics.metric import Metric
from sess_ray.refinement import GrabCut, opencv
from sess_ray.tables import markdown

app = command.command("label_study.py", __doc__)

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
SCORES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """A map, the pixels of its image, and where its target is annotated."""

    image_id: str
    score: float
    saliency: np.ndarray
    pixels: np.ndarray
    region: np.ndarray


def pairs(run: str, annotations: str, class_map: str | None, images: str | None) -> Iterator[Pair]:
    """Yield the maps of targets that are annotated in their image."""
    known, meaning = read_annotations(annotations), ClassMap.read(class_map) if class_map else ClassMap()
    meant = {label: meaning.classes(label, lambda index: [int(index)]) for label in known.labels()}
    for row in open_run(run, images):
        found = known.find(row.image_id)
        things = [entry for entry in found.objects if {*row.target_classes} <= {*meant[entry.label]}] if found else []
        if things:
            covered = region(things, row.height, row.width, "segments")
            yield Pair(row.image_id, row.score, row.saliency, row.image(), covered)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection over union of two masks, (H, W) bool."""
    union = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / union if union else 0.0


def overlaps(given: Sequence[Pair], mask: Callable[[Pair], np.ndarray]) -> np.ndarray:
    """Return the intersection over union of each pair's mask with its region, (n,)."""
    return np.array([overlap(mask(pair), pair.region) for pair in given])


def summed(values: np.ndarray, given: Sequence[Pair]) -> Metric:
    """Return values of pairs, (n,), as a metric: its interval draws images."""
    metric = Metric()
    for value, pair in zip(values.tolist(), given, strict=True):
        metric.add(value, key=pair.image_id)
    return metric


def cell(metric: Metric, base: Metric | None = None) -> str:
    """Return a metric in percent, or its paired difference to another, with its interval."""
    found = metric.difference(base) if base else metric.summary()
    sign = "+" if base else ""
    return f"{100 * found.mean:{sign}.1f} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"


def by_score(given: Sequence[Pair], values: np.ndarray) -> list[tuple[str, ...]]:
    """Return a row for each range of scores: labels, their mean overlap, and how many overlap by a half and more."""
    scores = np.array([pair.score for pair in given])
    rows: list[tuple[str, ...]] = [("score", "labels", "mean IoU", "IoU >= 0.5, %")]
    for low, high in zip(SCORES, (*SCORES[1:-1], np.inf), strict=False):
        here = values[(scores >= low) & (scores < high)]
        if len(here):
            rows.append(
                (f"from {low:g}", str(len(here)), f"{100 * here.mean():.1f}", f"{100 * (here >= 0.5).mean():.0f}")
            )
    return rows


@app.default
def main(
    *,
    run: str,
    annotations: str,
    class_map: str | None = None,
    images: str | None = None,
    backgrounds: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (0.05, 0.1, 0.15),
    foregrounds: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (0.5, 0.6, 0.7),
    thresholds: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (0.25, 0.3),
    iterations: int = GrabCut.iterations,
    side: int = GrabCut.side,
) -> int:
    """Choose on the images of even place, measure on the others and on all; return the exit code.

    Parameters
    ----------
    run, annotations, class_map, images
        As for sess-ray evaluate.
    backgrounds, foregrounds, thresholds
        Settings of GrabCut to choose from.
    iterations, side
        GrabCut's.
    """
    opencv().setNumThreads(1)
    everything = sorted(pairs(run, annotations, class_map, images), key=lambda pair: pair.image_id)
    if not everything:
        raise SessError(f"no map of {run} is of a target that is annotated in its image")
    ids = sorted({pair.image_id for pair in everything})
    even = set(ids[::2])
    tuning = [pair for pair in everything if pair.image_id in even]
    single = {cut: overlaps(everything, lambda pair, cut=cut: reaches(pair.saliency, cut)) for cut in THRESHOLDS}  # type: ignore[misc]
    tuned = np.array([pair.image_id in even for pair in everything])
    cut = max(THRESHOLDS, key=lambda cut: single[cut][tuned].mean())
    print(f"{len(everything)} maps of {len(ids)} images, {len(tuning)} of {len(even)} to choose on")
    print(f"one threshold, chosen: {cut:g}, mean IoU {100 * single[cut][tuned].mean():.2f}")
    tried: dict[tuple[GrabCut, float], float] = {}
    for background, foreground, threshold in product(backgrounds, foregrounds, thresholds):
        refine = GrabCut(background, foreground, iterations, side)
        found = overlaps(tuning, lambda pair: refine(pair.pixels, pair.saliency, threshold))  # noqa: B023 - called at once
        tried[refine, threshold] = found.mean()
        print(f"{refine}, threshold {threshold:g}: {100 * found.mean():.2f}", flush=True)
    refine, threshold = max(tried, key=lambda key: tried[key])
    refined = overlaps(everything, lambda pair: refine(pair.pixels, pair.saliency, threshold))
    print(f"chosen: {refine}, threshold {threshold:g}\n")
    rows = [("mean IoU, %", "maps", "images", f"one threshold, {cut:g}", "refined", "difference")]
    for name, part in (("chosen on", tuned), ("the other half", ~tuned), ("all", tuned | True)):
        given = [pair for pair, inside in zip(everything, part, strict=True) if inside]
        base, better = summed(single[cut][part], given), summed(refined[part], given)
        images_of = len({pair.image_id for pair in given})
        rows.append((name, str(len(given)), str(images_of), cell(base), cell(better), cell(better, base)))
    print(markdown(rows), "\n")
    print(markdown(by_score(everything, refined)))
    return 0


if __name__ == "__main__":
    sys.exit(command.run(app, sys.argv[1:]))
