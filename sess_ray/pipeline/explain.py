"""The explain job: a Ray Data graph from images to Parquet.

    tasks (id, uri, targets)      a table in the driver, cut into blocks of a few images
      -> read_and_decode          CPU tasks; uint8 pixels, or an error
      -> ExplainActor             GPU actors; windows, scores, maps and fusion, all inside
      -> write                    CPU tasks; PNG and Parquet, then one line of counts for the driver

A row that fails anywhere carries its error on, and ends as a row of errors/.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from typing import Any

import pyarrow as pa

from sess_ray import methods
from sess_ray.errors import SessError
from sess_ray.explainer import SESS
from sess_ray.gallery.overlay import overlay
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.decode import decode
from sess_ray.io.inputs import find_images, open_filesystem, read_items
from sess_ray.io.store import Store, decode_map
from sess_ray.models import Model, load_model
from sess_ray.pipeline.config import DEMO_MODEL, ExplainConfig
from sess_ray.pipeline.session import ARROW, TASK_CPUS, connect, pool
from sess_ray.pipeline.stages import TASKS, read_and_decode, write
from sess_ray.pipeline.targets import Task, annotated, label_classes, resolve

# A block costs about 20 ms whatever is in it; the last blocks should not leave actors waiting for one another.
MAX_BLOCK_ROWS = 32
BLOCKS_PER_ACTOR = 16


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    images, maps, errors : int
        Images explained, rows of maps/, rows of errors/.
    windows : int
        Windows scored.
    patches, kept : int
        Windows over all maps, and those that were kept.
    actor_seconds : float
        That actors spent on images that were explained.
    seconds, first_seconds : float
        From the first task to the last row, and to the first.
    """

    images: int = 0
    maps: int = 0
    errors: int = 0
    windows: int = 0
    patches: int = 0
    kept: int = 0
    actor_seconds: float = 0.0
    seconds: float = 0.0
    first_seconds: float = 0.0
    overlays: list[str] = field(default_factory=list)
    errors_files: list[str] = field(default_factory=list)

    def add(self, counts: dict[str, Any], seconds: float) -> None:
        for name in ("images", "maps", "errors", "windows", "patches", "kept", "actor_seconds"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.seconds = seconds
        self.first_seconds = self.first_seconds or seconds
        if counts["errors_file"]:
            self.errors_files.append(counts["errors_file"])


@dataclass
class Job:
    """A run that has been checked and can start: `prepare` makes it, `run` runs it."""

    config: ExplainConfig
    model: Model
    tasks: list[Task]
    store: Store


def prepare(config: ExplainConfig) -> Job:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    methods.get(config.method).parsed(config.method_options())
    store = Store(config.output)
    if not config.dry_run and not config.overwrite and store.is_used():
        raise SessError(
            f"output {config.output} has a run already: add --overwrite to replace it, or choose another --output"
        )
    items = _demo_items() if config.input is None else find_images(config.input)
    items = items[: config.limit]
    if config.input is not None and config.model == DEMO_MODEL and config.weights is not None:
        raise SessError("--weights need the --model that they are of")
    names = read_class_names(config.class_names) if config.class_names else None
    model = load_model(config.model, config.weights, config.layer, class_names=names)
    SESS(model, device="cpu", **config.explainer_options())  # type: ignore[arg-type]
    if config.annotations is not None:
        annotations = read_annotations(config.annotations)
        tasks = annotated(items, annotations, label_classes(annotations, config.class_map, model), model)
    else:
        tasks = resolve(items, config.targets, model)
    if not config.dry_run:
        store.check_writable()
    return Job(config, model, tasks, store)


def _demo_items() -> list[Any]:
    from sess_ray import demo

    return demo.images()


def read_class_names(path: str) -> list[str]:
    """Read class names: one a line, or the last column of a table separated by tabs."""
    try:
        filesystem, place = open_filesystem(path)
        text = filesystem.cat_file(place).decode()
    except Exception as error:
        raise SessError(f"cannot read class names {path!r}: {error}") from error
    return [line.split("\t")[-1].strip() for line in text.splitlines() if line.strip()]


def _blocks(tasks: list[Task], actors: int) -> list[pa.Table]:
    rows = [
        {
            "image_id": task.item.image_id,
            "uri": task.item.uri,
            "row": task.item.row,
            "top": task.targets if isinstance(task.targets, str) else None,
            "targets": None if isinstance(task.targets, str) else [list(entry) for entry in task.targets],
            "stage": "targets" if task.error else None,
            "error": task.error,
        }
        for task in tasks
    ]
    size = min(MAX_BLOCK_ROWS, max(1, ceil(len(rows) / (actors * BLOCKS_PER_ACTOR))))
    return [pa.Table.from_pylist(rows[i : i + size], TASKS) for i in range(0, len(rows), size)]


def stream(job: Job) -> Iterator[dict[str, Any]]:
    """Run the graph; yield the counts of each block as soon as it is written.

    Ray must be connected. Block by block: images, maps, errors, windows, patches, kept, and the files written.
    """
    import ray

    from sess_ray.pipeline.actor import ExplainActor

    config = job.config
    workers = pool(config.actors, config.gpus_per_actor, len(job.tasks))
    blocks = _blocks(job.tasks, workers["compute"].max_size)
    model = ray.put(job.model)  # a name of its own keeps it for actors that are started again
    # The method itself and not its name: actors do not know what a script has registered.
    options = {**config.explainer_options(), "method": methods.get(config.method)}
    tasks: dict[str, Any] = {**ARROW, "num_cpus": TASK_CPUS}
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(read_and_decode, fn_kwargs={"max_pixels": config.max_pixels}, **tasks)
        .map_batches(
            ExplainActor,
            fn_constructor_args=(model, options),
            **ARROW,
            **workers,
        )
        .map_batches(
            write,
            fn_kwargs={"output": config.output, "method": config.method, "model": job.model.name},
            **tasks,
        )
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        yield from batch.to_pylist()


def run(job: Job, progress: Any = None) -> Summary:
    """Run a job to its end: maps/, errors/, overlays/ and, last, run.json.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called with the `Summary` so far after each written block.

    Returns
    -------
    Summary
    """
    connect(job.config.address)
    if job.config.overwrite:
        job.store.clear()
    summary = Summary()
    begin, started = time.perf_counter(), datetime.now(UTC)
    for counts in stream(job):
        summary.add(counts, time.perf_counter() - begin)
        if counts["maps_file"] and len(summary.overlays) < job.config.overlays:
            _draw(job, counts["maps_file"], summary)
        if progress:
            progress(summary)
    job.store.write_json("run.json", _record(job, summary, started))
    return summary


def _draw(job: Job, name: str, summary: Summary) -> None:
    """Draw the images of a file of maps, until there are enough pictures."""
    where = {task.item.image_id: task.item for task in job.tasks}
    for row in job.store.read_table(name).to_pylist():
        if len(summary.overlays) >= job.config.overlays:
            return
        item = where[row["image_id"]]
        [content] = read_items([item.uri], [item.row])
        if isinstance(content, Exception):
            continue
        caption = f"{row['target_name']}: p = {row['score']:.2f}, {row['num_kept']} of {row['num_patches']} windows"
        picture = overlay(decode(content, job.config.max_pixels), decode_map(row["saliency"]["bytes"]), caption)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in row["image_id"].rsplit(".", 1)[0])[-80:]
        mark = hashlib.sha256(row["image_id"].encode()).hexdigest()[:6]
        name = f"overlays/{stem}-{mark}-{row['target']}.png"
        job.store.write(name, picture)
        summary.overlays.append(name)


def _record(job: Job, summary: Summary, started: datetime) -> dict[str, Any]:
    packages = ("sess-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "fsspec", "numpy")
    return {
        "config": asdict(job.config),
        "model": {
            "name": job.model.name,
            "layer": job.model.layer,
            "input_size": job.model.input_size,
            "mean": job.model.mean,
            "std": job.model.std,
            "num_classes": job.model.num_classes,
            "weights_sha256": job.model.weights_sha256(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "started": started.isoformat(timespec="seconds"),
        "counts": {
            "inputs": len(job.tasks),
            "images": summary.images,
            "maps": summary.maps,
            "errors": summary.errors,
            "windows": summary.windows,
        },
        "share_kept": summary.kept / summary.patches if summary.patches else None,
        "actor_seconds": round(summary.actor_seconds, 3),
        "seconds": round(summary.seconds, 3),
        "seconds_to_first_rows": round(summary.first_seconds, 3),
        "images_per_second": round(summary.images / summary.seconds, 3) if summary.seconds else None,
        "windows_per_second": round(summary.windows / summary.seconds, 1) if summary.seconds else None,
        "command": sys.argv,
    }
