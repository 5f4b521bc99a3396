"""What is checked and known of a gallery before it starts: its rows, and where each run has their maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import Annotations
from sess_ray.io.moved import Moved
from sess_ray.io.names import prompts_of, read_class_names
from sess_ray.io.store import FINISHED, Store
from sess_ray.metrics.suite import SUITE
from sess_ray.models import load_model
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.gallery.choosing import Key, first_rows, rows_of, worst_keys
from sess_ray.pipeline.gallery.config import GalleryConfig

# What a gallery writes, and the page of one image.
GALLERY = ("index.html", "page", "data", "images", "maps", "levels", "image.jpg", "windows", "fused")
MOST = 250_000  # rows, where nobody has said how many


@dataclass
class Gallery:
    """A gallery that has been checked and can start.

    Attributes
    ----------
    config : GalleryConfig
    rows : list of dict
        Rows of `choosing.KNOWN`, with ``number``, and ``places``: for each run (file, row in it) or None.
    store : Store
    annotations : Annotations or None
    metrics : list of dict
        What an order by a metric needs: run, metric, better, values.
    labels : dict of (str, int) to str
        The annotations' word for the target of a row, where an evaluation knows it.
    maps : dict of str to int
        How many maps each run has, shown or not.
    """

    config: GalleryConfig
    rows: list[dict[str, Any]]
    store: Store
    annotations: Annotations | None
    metrics: list[dict[str, Any]]
    labels: dict[tuple[str, int], str]
    maps: dict[str, int]

    def left_out(self) -> str:
        """Return in a line how many maps are not shown, and how to see others; empty where all are."""
        shown = [sum(row["places"][place] is not None for row in self.rows) for place in range(len(self.maps))]
        parts = [
            f"{own} of the {count} maps of {run}"
            for own, (run, count) in zip(shown, self.maps.items(), strict=True)
            if own < count
        ]
        if not parts:
            return ""
        which = "the worst by the evaluation" if self.config.worst else "the first by name"
        return f"shown: {', '.join(parts)}, {which}; --limit N or --worst N show others"


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
    urls = config.runs()
    runs = [Store(url) for url in urls.values()]
    files = [map_files(run, f"--run {public(run.url)}") for run in runs]
    if config.worst:
        keys = _worst(config, config.worst)
        rows, maps = rows_of(runs, files, keys)
    else:
        rows, maps = first_rows(runs, files, config.limit or MOST)
    moved = Moved(config.images) if config.images else None
    uris = moved.find([row["image_id"] for row in rows]) if moved else [None] * len(rows)
    for number, (row, uri) in enumerate(zip(rows, uris, strict=True)):
        row |= {"number": number, "uri": uri or row["uri"]}
    annotations = read_annotations(config.annotations) if config.annotations else None
    metrics, labels = _measured(config, rows)
    return Gallery(config, rows, store, annotations, metrics, labels, dict(zip(urls, maps, strict=True)))


def _worst(config: GalleryConfig, count: int) -> list[Key]:
    """Return the worst maps of the first run by the evaluation's first metric."""
    if config.evaluation is None:
        raise SessError("--worst needs --evaluation, the output of sess-ray evaluate: it says which maps are the worst")
    columns, chunks = results_of(Store(config.evaluation), next(iter(config.runs().values())))
    names = _ordering(columns)
    if not names:
        raise SessError(f"--worst: the evaluation {public(config.evaluation)} has no metric that orders maps")
    return worst_keys(names[0], chunks, count)


def _ordering(columns: Iterable[str]) -> list[str]:
    """Return the metrics by which maps can be ordered."""
    return [name for name in columns if name in SUITE and not SUITE[name].curve]


def unused(config: GalleryConfig) -> Store:
    """Return the output; `SessError` where it has a gallery that is not to be replaced, or cannot be written."""
    use(config.access())
    store = Store(config.output)
    refuse_used(store, GALLERY, "a gallery", overwrite=config.overwrite)
    store.check_writable()
    return store


def _measured(
    config: GalleryConfig, rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], str]]:
    """Return the metrics of each row, by run, and the words of the annotations for targets."""
    metrics: list[dict[str, Any]] = []
    labels: dict[tuple[str, int], str] = {}
    places = {(row["image_id"], row["target"]): row["number"] for row in rows}
    for run, url in config.runs().items() if config.evaluation else ():
        assert config.evaluation
        columns, chunks = results_of(Store(config.evaluation), url)
        names = _ordering(columns)
        values: dict[str, list[float | None]] = {name: [None] * len(rows) for name in names}
        for table in chunks(["image_id", "target", "label", *names]):
            both = zip(table["image_id"].to_pylist(), table["target"].to_pylist(), strict=True)
            for found in table.filter(pa.array([key in places for key in both], pa.bool_())).to_pylist():
                key = found["image_id"], found["target"]
                if found["label"]:
                    labels[key] = found["label"]
                for name in names:
                    value = found[name]
                    values[name][places[key]] = None if value is None else round(value, 4)
        for name, own in values.items():
            metrics.append({"run": run, "metric": name, "better": SUITE[name].make().better, "values": own})
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
