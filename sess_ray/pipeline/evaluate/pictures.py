"""The images that an evaluation shows: best, worst and most different, each with the maps of all runs."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from sess_ray.io.decode import decode
from sess_ray.io.groups import group_of
from sess_ray.io.maps import map_of
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store
from sess_ray.metrics.suite import SUITE
from sess_ray.pictures.overlay import blend
from sess_ray.pipeline.cluster.calls import Calls, Here, got
from sess_ray.pipeline.evaluate.pairing import Partition, Runs, gathered, matched, partitions
from sess_ray.pipeline.evaluate.prepare import Evaluation
from sess_ray.pipeline.evaluate.report import arrow
from sess_ray.pipeline.evaluate.results import Chunks

SIDE = 240  # of a thumbnail, in pixels
EACH = 4  # images of a kind
AMONG = 3 * EACH  # of each kind those that may be shown, where all before them are of another kind already
TITLES = ("Best", "Worst", "Most different")
Key = tuple[str, int]  # image_id, target
Ranked = tuple[float, Key]


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


def ordered_by(metric: str, pair: tuple[str, str] | None, runs: Sequence[str]) -> str:
    """Say by what images are chosen, as `chosen` does.

    >>> ordered_by("pxap", ("sess", "base"), ["base", "sess"])
    'By pxap ↑, in percent: the best and the worst of sess, and the most different of sess and base.'
    >>> ordered_by("deletion_rise", None, ["sess"])
    'By deletion_rise ↓, in percent.'
    """
    said = f"By {metric} {arrow(metric)}, in percent"
    if pair:
        return f"{said}: the best and the worst of {pair[0]}, and the most different of {pair[0]} and {pair[1]}."
    return f"{said}: the best and the worst of {runs[0]}." if len(runs) > 1 else f"{said}."


def pictures(
    evaluation: Evaluation,
    results: Mapping[str, Sequence[Chunks]],
    compared: Sequence[tuple[str, str]],
    call: Calls | None = None,
) -> tuple[str, list[Picture]]:
    """Return in a sentence what images are ordered by, and the images to show: both empty where there are none."""
    call = call or Here()
    metric = telling(evaluation.metrics)
    if metric is None:
        return "", []
    better = SUITE[metric].make().better
    ends = {run: _ends(groups, metric, better, call) for run, groups in results.items()}
    there = {run: results[run] for run, own in ends.items() if own.count}
    if not there:
        return "", []
    pair = next((pair for pair in compared if all(name in there for name in pair)), None)
    among = ends[pair[0] if pair else next(iter(there))].keys
    if pair:
        among |= _apart((there[pair[0]], there[pair[1]]), metric, sum(ends[run].count for run in pair), call)
    values, labels = _told(results, metric, among, call)
    values = {run: values[run] for run in there}
    wanted = chosen(values, pair, better)
    places = _places(evaluation, {key for _, key in wanted})
    return ordered_by(metric, pair, list(there)), [
        Picture(
            title,
            key[0],
            labels[key],
            {run: own[key] for run, own in values.items() if key in own},
            _thumbnails(evaluation.runs, {run: at for (run, *own), at in places.items() if tuple(own) == key}),
        )
        for title, key in wanted
    ]


@dataclass
class _Ends:
    """How many maps of a run have a value, and the keys of the first and the last of them."""

    count: int
    keys: set[Key]


def _ends(groups: Sequence[Chunks], metric: str, better: str, call: Calls) -> _Ends:
    sign = 1 if better == "higher" else -1
    found = [got(one) for one in [call(_ends_of, group, metric, sign) for group in groups]]
    first = heapq.nsmallest(AMONG, (one for _, own, _ in found for one in own))
    last = heapq.nlargest(AMONG, (one for _, _, own in found for one in own))
    return _Ends(sum(count for count, _, _ in found), {key for _, key in (*first, *last)})


def _ends_of(group: Chunks, metric: str, sign: int) -> tuple[int, list[Ranked], list[Ranked]]:
    count = 0
    first: list[Ranked] = []
    last: list[Ranked] = []
    for own in _known(metric, group):
        count += len(own)
        worth = -sign * own[metric].to_numpy()
        # As `chosen` orders them: by value, then by key.
        first = heapq.nsmallest(AMONG, [*first, *_keyed(own, worth, worth)])
        last = heapq.nlargest(AMONG, [*last, *_keyed(own, worth, -worth)])
    return count, first, last


def _known(metric: str, group: Chunks) -> Iterator[pa.Table]:
    return (table.filter(table[metric].is_valid()) for table in group(["image_id", "target", metric]))


def _apart(runs: Runs, metric: str, rows: int, call: Calls) -> set[Key]:
    """Return the keys of the maps of two runs that differ most."""
    parts = partitions(runs, partial(_known, metric), rows, call)
    found = [got(one) for one in [call(_apart_of, part, metric) for part in parts]]
    return {key for _, key in heapq.nsmallest(AMONG, (one for own in found for one in own))}


def _apart_of(part: Partition, metric: str) -> list[Ranked]:
    both = gathered(part)
    [places] = matched(both, ["target"])
    first, second = (table.take(own) for table, own in zip(both, places, strict=True))
    apart = -np.abs(first[metric].to_numpy() - second[metric].to_numpy())
    return heapq.nsmallest(AMONG, _keyed(first, apart, apart))


def _keyed(table: pa.Table, values: np.ndarray, order: np.ndarray) -> Iterator[Ranked]:
    """Yield values with the keys of their rows, those that may be among the first by their order."""
    if len(order) > AMONG:
        chosen_ = np.flatnonzero(order <= np.partition(order, AMONG)[AMONG])
        table, values = table.take(chosen_), values[chosen_]
    keys = zip(table["image_id"].to_pylist(), table["target"].to_pylist(), strict=True)
    return zip(values.tolist(), keys, strict=True)


def _told(
    results: Mapping[str, Sequence[Chunks]], metric: str, among: set[Key], call: Calls
) -> tuple[dict[str, dict[Key, float]], dict[Key, str]]:
    """Return what each run says of some maps, and their labels."""
    values: dict[str, dict[Key, float]] = {}
    labels: dict[Key, str] = {}
    for run, groups in results.items():
        found = [got(one) for one in [call(_told_of, group, metric, among) for group in groups]]
        rows = {key: row for own in found for key, row in own.items()}
        values[run] = {key: row[metric] for key, row in rows.items() if row[metric] is not None}
        labels |= {key: row["label"] or "" for key, row in rows.items()}
    return values, labels


def _told_of(group: Chunks, metric: str, among: set[Key]) -> dict[Key, dict[str, Any]]:
    return {key: row for table in group(["image_id", "target", "label", metric]) for key, row in _of(table, among)}


def _of(table: pa.Table, wanted: set[Key]) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Yield the rows of some maps, by their keys."""
    ids = pa.array(sorted({image_id for image_id, _ in wanted}), pa.string())
    for row in table.filter(pc.is_in(table["image_id"], ids)).to_pylist():
        key = row["image_id"], row["target"]
        if key in wanted:
            yield key, row


def _places(evaluation: Evaluation, wanted: set[Key]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return where the maps of some images are by run, image and target: file, number and uri."""
    found = {}
    for run, file, table in evaluation.selection.stream(["target", "uri"]):
        for key, row in _of(table, wanted):
            found[(run, *key)] = row | {"file": file}
    return found


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
        table, first = group_of(runs[run], place["file"], place["number"])
        [row] = table.slice(place["number"] - first, 1).to_pylist()
        saliency = map_of(row)
        if saliency is not None and saliency.shape == image.shape[:2]:
            found[run] = _data_uri(blend(image, saliency))
    return found


def _data_uri(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
