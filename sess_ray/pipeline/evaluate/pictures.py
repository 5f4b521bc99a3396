"""The images that an evaluation shows: best, worst and most different, each with the maps of all runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from sess_ray.io.decode import decode
from sess_ray.io.maps import map_of
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store
from sess_ray.metrics.suite import SUITE
from sess_ray.pictures.overlay import blend
from sess_ray.pipeline.evaluate.prepare import Evaluation

SIDE = 240  # of a thumbnail, in pixels
EACH = 4  # images of a kind
TITLES = ("Best", "Worst", "Most different")
Key = tuple[str, int]  # image_id, target


@dataclass(frozen=True)
class Picture:
    """An image with its maps, as it is shown.

    Attributes
    ----------
    title : str
        One of `TITLES`.
    name, label : str
        The image's, and its target's.
    values : dict of str to float
        The metric of each run, a share of 1.
    thumbnails : dict of str to str
        JPEGs as data URIs: the image, then the maps of runs over it. Without those that cannot be read.
    """

    title: str
    name: str
    label: str
    values: dict[str, float]
    thumbnails: dict[str, str]


def telling(metrics: Sequence[str]) -> str | None:
    """Return the metric that images are ordered by: the first that gives a map a value of its own.

    >>> telling(["pointing_game", "max_box_acc", "overall_rise"]), telling(["pxap", "overall_rise"])
    ('overall_rise', 'pxap')
    """
    graded = (name for name in metrics if not SUITE[name].curve and name not in BINARY)
    return next(graded, None)


BINARY = ("pointing_game", "pointing_game_difficult", "corloc", "average_increase")  # hit or miss


def chosen(
    values: Mapping[str, Mapping[Key, float]], pair: tuple[str, str] | None, better: str
) -> list[tuple[str, Key]]:
    """Return which images to show, with their titles: none twice.

    Parameters
    ----------
    values : mapping
        For each run, the metric of each map.
    pair : (str, str) or None
        A run and its base, where two are compared: then the images where these differ most, either way, too.
    better : {"higher", "lower"}
    """
    run = pair[0] if pair else next(iter(values))
    sign = 1 if better == "higher" else -1
    ordered = sorted(values[run], key=lambda key: (-sign * values[run][key], key))
    kinds = [("Best", ordered), ("Worst", ordered[::-1])]
    if pair:
        ours, theirs = (values[name] for name in pair)
        shared = ours.keys() & theirs.keys()
        apart = sorted(shared, key=lambda key: (-abs(ours[key] - theirs[key]), key))
        kinds.insert(0, ("Most different", apart))
    found: dict[Key, str] = {}
    for title, keys in kinds:
        for key in [key for key in keys if key not in found][:EACH]:
            found[key] = title
    order = {title: place for place, title in enumerate(TITLES)}
    return sorted(((title, key) for key, title in found.items()), key=lambda one: order[one[0]])


def pictures(
    evaluation: Evaluation, results: Mapping[str, pa.Table], compared: Sequence[tuple[str, str]]
) -> tuple[str, list[Picture]]:
    """Return the metric that images are ordered by, empty for none, and the images to show."""
    metric = telling(evaluation.metrics)
    if metric is None:
        return "", []
    values: dict[str, dict[Key, float]] = {}
    labels: dict[Key, str] = {}
    for run, table in results.items():
        rows = table.select(["image_id", "target", "label", metric]).to_pylist()
        values[run] = {(row["image_id"], row["target"]): row[metric] for row in rows if row[metric] is not None}
        labels |= {(row["image_id"], row["target"]): row["label"] or "" for row in rows}
    values = {run: own for run, own in values.items() if own}
    if not values:
        return "", []
    pair = next((pair for pair in compared if all(name in values for name in pair)), None)
    wanted = chosen(values, pair, SUITE[metric].make().better)
    places = _places(evaluation, {key for _, key in wanted})
    return metric, [
        Picture(
            title,
            key[0],
            labels[key],
            {run: own[key] for run, own in values.items() if key in own},
            _thumbnails(evaluation.runs, {run: at for (run, *own), at in places.items() if tuple(own) == key}),
        )
        for title, key in wanted
    ]


def _places(evaluation: Evaluation, wanted: set[Key]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return where the maps of some images are: rows of `MAP_ROWS` by run, image and target."""
    return {
        (row["run"], row["image_id"], row["target"]): row
        for block in evaluation.blocks
        for row in block.to_pylist()
        if (row["image_id"], row["target"]) in wanted
    }


def _thumbnails(runs: Mapping[str, Store], places: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the image and its maps over it; what cannot be read is a row of problems/ already."""
    try:
        [content] = read_items([next(iter(places.values()))["uri"]])
        if isinstance(content, Exception):
            raise content
        image = decode(content)
    except Exception:
        return {}
    found = {"image": _data_uri(Image.fromarray(image))}
    for run, place in places.items():
        [row] = runs[run].read_table(place["file"]).slice(place["number"], 1).to_pylist()
        saliency = map_of(row)
        if saliency is not None and saliency.shape == image.shape[:2]:
            found[run] = _data_uri(blend(image, saliency))
    return found


def _data_uri(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
