"""What annotations say of a map's target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sess_ray.io.annotations import Annotation, Kind
from sess_ray.io.regions import region
from sess_ray.metrics.localization import is_difficult
from sess_ray.metrics.suite import Facts


class Unmeasured(Exception):  # noqa: N818 - no error: it says why a map has no value
    """Why a map cannot be compared with annotations."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def facts_of(
    row: dict[str, Any], annotation: Annotation | None, classes: Mapping[str, Sequence[int]], kind: Kind
) -> tuple[str, Facts]:
    """Return the label of a map's target, and what is known of it.

    Parameters
    ----------
    row : dict
        A row of `READ`: height, width, target, target_name and target_classes (of groups), peak_x and peak_y count.
    annotation : Annotation or None
        What is annotated in the image.
    classes : mapping
        Which classes of the model a label means.
    kind : {"segments", "boxes"}
        What the target's region is made of.

    Raises
    ------
    Unmeasured
        Where the map cannot be compared.
    """
    if annotation is None:
        raise Unmeasured("no annotation", "the image is not annotated")
    height, width = row["height"], row["width"]
    if (annotation.height or height, annotation.width or width) != (height, width):
        detail = f"annotated at {annotation.width} x {annotation.height}, the map is {width} x {height}"
        raise Unmeasured("another size", detail)
    labels = _labels(meant(row), {thing.label: classes[thing.label] for thing in annotation.objects})
    own = [thing for thing in annotation.objects if thing.label in labels]
    if not own:
        what = row["target"] if row["target"] >= 0 else f"group {row['target_name']}"
        raise Unmeasured("no such object", f"class {what} is not annotated in the image")
    if all(thing.difficult for thing in own):
        raise Unmeasured("difficult", f"all objects annotated as {own[0].label!r} are marked difficult")
    where = region(own, height, width, kind)
    covered = where if kind == "boxes" else region(own, height, width, "boxes")
    if not where.any() or not covered.any():
        raise Unmeasured("nothing there", f"what is annotated as {own[0].label!r} is empty or outside the image")
    ignored = [thing for thing in own if thing.difficult or thing.crowd]
    others = region([thing for thing in own if thing not in ignored], height, width, kind)
    outlines = None
    if all(thing.segments for thing in own):
        outlines = where if kind == "segments" else region(own, height, width, "segments")
    return own[0].label, Facts(
        region=where,
        covered=covered,
        boxes=np.array([thing.box for thing in own], np.float64),
        segments=outlines,
        difficult=is_difficult(where, others=any(thing.label not in labels for thing in annotation.objects)),
        peak=(row["peak_x"], row["peak_y"]),
        ignored=region(ignored, height, width, kind) & ~others if ignored else None,
    )


def meant(row: dict[str, Any]) -> Sequence[int]:
    """Return the classes that a map's target means; maps of versions that knew no groups do not say it."""
    return row.get("target_classes") or [row["target"]]


def _labels(target: Sequence[int], classes: Mapping[str, Sequence[int]]) -> set[str]:
    """Return the labels of what a target is: those that mean the same, else those that it is a part of or that it has.

    A class is a part of all labels that mean it. A group of dogs is also a beagle that is annotated as such.
    """
    wanted = set(target)
    same = {label for label, own in classes.items() if wanted == set(own)}
    if same and len(wanted) > 1:
        return same
    return {label for label, own in classes.items() if own and (wanted <= set(own) or wanted >= set(own))}
