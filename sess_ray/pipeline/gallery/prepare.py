"""What is checked and known of a gallery before it starts: its rows, and where each run has their maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import Annotations
from sess_ray.io.inputs import find_images
from sess_ray.io.names import prompts_of, read_class_names
from sess_ray.io.store import FINISHED, Store
from sess_ray.metrics.suite import SUITE
from sess_ray.models import load_model
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.gallery.config import GalleryConfig

# What a gallery writes, and the page of one image.
GALLERY = ("index.html", "page", "data", "images", "maps", "levels", "image.jpg", "windows", "fused")
KNOWN = (
    "image_id",
    "uri",
    "target",
    "target_name",
    "target_classes",
    "score",
    "predicted",
)  # columns that the driver reads


@dataclass
class Gallery:
    """A gallery that has been checked and can start.

    Attributes
    ----------
    config : GalleryConfig
    rows : list of dict
        Rows of `KNOWN`, with ``number``, and ``places``: for each run (file, row in it) or None.
    store : Store
    annotations : Annotations or None
    metrics : list of dict
        What an order by a metric needs: run, metric, better, values.
    labels : dict of (str, int) to str
        The annotations' word for the target of a row, where an evaluation knows it.
    """

    config: GalleryConfig
    rows: list[dict[str, Any]]
    store: Store
    annotations: Annotations | None
    metrics: list[dict[str, Any]]
    labels: dict[tuple[str, int], str]


def prepare(config: GalleryConfig) -> Gallery:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    if not config.run:
        raise SessError("nothing to show: give --run NAME=OUTPUT, such as --run sess=out/sess, or --image FILE")
    store = unused(config)
    rows = _rows(config)
    annotations = read_annotations(config.annotations) if config.annotations else None
    metrics, labels = _measured(config, rows)
    return Gallery(config, rows, store, annotations, metrics, labels)


def unused(config: GalleryConfig) -> Store:
    """Return the output; `SessError` where it has a gallery that is not to be replaced, or cannot be written."""
    use(config.access())
    store = Store(config.output)
    refuse_used(store, GALLERY, "a gallery", overwrite=config.overwrite)
    store.check_writable()
    return store


def _rows(config: GalleryConfig) -> list[dict[str, Any]]:
    """Return the rows of all runs, those of an image together."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    runs = list(config.runs().values())
    moved = {item.image_id: item.uri for item in find_images(config.images)} if config.images else {}
    for place, url in enumerate(runs):
        stored = Store(url)
        files = map_files(stored, f"--run {public(url)}")
        for file, table in zip(files, stored.read_tables(files, list(KNOWN)), strict=True):
            for line, row in enumerate(table.to_pylist()):
                key = row["image_id"], row["target"]
                if row["predicted"] in (row.get("target_classes") or ()):
                    row["predicted"] = row["target"]  # a class of the group is right
                if key not in found:
                    uri = moved.get(row["image_id"], row["uri"])
                    found[key] = {**row, "uri": uri, "places": [None] * len(runs)}
                found[key]["places"][place] = (file, line)
    rows = [found[key] for key in sorted(found)][: config.limit]
    for number, row in enumerate(rows):
        row["number"] = number
    return rows


def _measured(
    config: GalleryConfig, rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], str]]:
    """Return the metrics of each row, by run, and the words of the annotations for targets."""
    metrics: list[dict[str, Any]] = []
    labels: dict[tuple[str, int], str] = {}
    if config.evaluation:
        keys = [(row["image_id"], row["target"]) for row in rows]
        for run, url in config.runs().items():
            columns, chunks = results_of(Store(config.evaluation), url)
            names = [name for name in columns if name in SUITE and not SUITE[name].curve]
            tables = chunks(["image_id", "target", "label", *names])
            results = {(row["image_id"], row["target"]): row for table in tables for row in table.to_pylist()}
            labels |= {key: row["label"] for key, row in results.items() if row["label"]}
            for name in names:
                values = [results.get(key, {}).get(name) for key in keys]
                rounded = [None if value is None else round(value, 4) for value in values]
                metrics.append({"run": run, "metric": name, "better": SUITE[name].make().better, "values": rounded})
    return metrics, labels


def predicted_names(run: Store, classes: Iterable[int]) -> dict[int, str]:
    """Return the names of classes of a run's model; none where it is not there to be asked."""
    record = run.read_json(FINISHED)
    if record is None:
        return {}
    settings = record["config"]
    try:
        names = read_class_names(settings["class_names"]) if settings["class_names"] else None
        own = ":" in settings["model"]
        model = load_model(
            settings["model"], None if own else "random", class_names=names, prompts=prompts_of(settings)
        )
        return {number: model.class_name(number) for number in classes}
    except (SessError, KeyError):
        return {}
