"""The explain job: a Ray Data graph from images to Parquet.

    tasks (id, uri, targets)      a table in the driver, less what the output holds, cut into blocks of a few images
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from typing import Any

import pyarrow as pa

from sess_ray import methods
from sess_ray.fusion import num_kept
from sess_ray.gallery.overlay import overlay
from sess_ray.io.access import public_command
from sess_ray.io.decode import decode
from sess_ray.io.inputs import is_shard, split_uri
from sess_ray.io.ledger import read_ledger
from sess_ray.io.reading import read_items
from sess_ray.io.store import FINISHED, decode_map
from sess_ray.pipeline import metering
from sess_ray.pipeline.config import ExplainConfig
from sess_ray.pipeline.plan import Job, prepare
from sess_ray.pipeline.session import ARROW, TASK_CPUS, arriving, connect, map_blocks, pool
from sess_ray.pipeline.stages import read_and_decode, write
from sess_ray.windows import sess_plan

__all__ = ["Job", "Summary", "Total", "blocks", "prepare", "run", "stream"]

# A block costs about 20 ms whatever is in it; the last blocks should not leave actors waiting for one another.
BLOCK_ROWS = 32
BLOCKS_PER_ACTOR = 16
# Before the first image is read, each block takes the driver more than a millisecond: of many images they are larger.
BLOCKS = 1024
# Also of rows of one Parquet file with image bytes: a row group that is cut is read again.
MAX_BLOCK_ROWS = 512
# What is lost with a block that is cut short: a quarter of an hour of a core with SqueezeNet.
MAX_BLOCK_PASSES = 2**17
TYPICAL_IMAGE = (375, 500)
TYPICAL_CHANNELS = 512


@dataclass(frozen=True)
class Total:
    """What an output holds: images with maps, rows of maps/ and rows of errors/."""

    images: int
    maps: int
    errors: int


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
    total : Total
        What the output holds in the end, with what other runs left there.
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
    total: Total = Total(0, 0, 0)
    overlays: list[str] = field(default_factory=list)
    errors_file: str = ""  # the first

    def add(self, counts: dict[str, Any], seconds: float) -> None:
        for name in ("images", "maps", "errors", "windows", "patches", "kept", "actor_seconds"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.seconds = seconds
        self.first_seconds = self.first_seconds or seconds
        self.errors_file = self.errors_file or counts["errors_file"]


def most_rows(config: ExplainConfig, input_size: int) -> int:
    """Return how many images of a common size a block may have, lest an actor works for hours before it is written."""
    plan = sess_plan(*TYPICAL_IMAGE, input_size, config.num_scales, config.step_size or input_size)
    windows = plan.num_patches or 1
    kept = num_kept(windows, config.pre_filter_ratio)
    passes = windows + kept * methods.get(config.method).num_passes(TYPICAL_CHANNELS)
    return min(MAX_BLOCK_ROWS, max(1, MAX_BLOCK_PASSES // passes))


def block_rows(images: float, actors: int, most: int = MAX_BLOCK_ROWS, *, packed: bool = False) -> int:
    """Return how many images a block has at most; `packed` in one Parquet file."""
    fair = max(1, ceil(images / (actors * BLOCKS_PER_ACTOR)))
    return min(fair, most, most if packed else max(BLOCK_ROWS, ceil(images / BLOCKS)))


def blocks(tasks: pa.Table, actors: int, most: int = MAX_BLOCK_ROWS) -> list[pa.Table]:
    """Cut the tasks: a few images, some rows of one Parquet file, or one tar shard.

    Of images in files of their own the first blocks have 1, 2, 4, ..., so that the first rows are there soon, to be
    looked at.
    """
    few, many = (block_rows(tasks.num_rows, actors, most, packed=packed) for packed in (False, True))
    cuts: list[int] = []
    before, count = "", 0
    uris = (uri for chunk in tasks["uri"].chunks for uri in chunk.to_pylist())
    for number, uri in enumerate(uris):
        file, member = split_uri(uri)
        kind = uri if is_shard(uri) else file if member is not None else ""
        first = 2 ** min(len(cuts) - 1, MAX_BLOCK_ROWS.bit_length())
        if not number or kind != before or count >= (many if kind else min(few, first)):
            cuts.append(number)
            count = 0
        before, count = kind, count + 1
    tasks = tasks.combine_chunks()  # or each slice would look for its rows in all chunks
    ends = [*cuts[1:], tasks.num_rows]
    return [tasks.slice(start, end - start) for start, end in zip(cuts, ends, strict=True)]


def stream(job: Job, actor: type | None = None, compute: Any = None, lanes: int = 1) -> Iterator[dict[str, Any]]:
    """Run the graph; yield the counts of each block as soon as it is written.

    Ray must be connected. Block by block: images, maps, errors (and where each failed), windows, patches, kept, and the
    files written. Where the graph itself is measured, `actor` and `compute` stand in for `ExplainActor` and its pool;
    an actor then takes so many blocks at a time as it has `lanes`.
    """
    import ray

    from sess_ray.pipeline.actor import ExplainActor

    config = job.config
    images = job.tasks.num_rows if job.countable else None
    workers = pool(config.actors, config.gpus_per_actor, images, config.address)
    workers["compute"] = compute = compute or workers["compute"]
    cut = blocks(job.tasks, compute.max_size * lanes, most_rows(config, job.model.input_size))
    access = config.access()
    needed = config.needed(job.model.input_size)
    reading = {"access": access, "max_pixels": config.max_pixels, "needed": needed}
    model = ray.put(job.model)  # a name of its own keeps it for actors that are started again
    # The method itself and not its name: actors do not know what a script has registered.
    options = {**config.explainer_options(), "method": methods.get(config.method)}
    tasks: dict[str, Any] = {**ARROW, "num_cpus": TASK_CPUS}
    decoded = ray.data.from_blocks(cut).map_batches(read_and_decode, fn_kwargs=reading, **tasks)
    explained = map_blocks(decoded, actor or ExplainActor, fn_constructor_args=(model, options), **workers)
    written = explained.map_batches(
        write,
        fn_kwargs={
            "access": access,
            "output": job.store.location,
            "method": config.method,
            "model": job.model.name,
        },
        **tasks,
    )
    yield from arriving(written)


def run(job: Job, progress: Any = None) -> Summary:
    """Run a job to its end: started.json, maps/, errors/, overlays/ and, last, run.json.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called with the `Summary` so far after each written block.

    Returns
    -------
    Summary
    """
    config, store = job.config, job.store
    job.start()
    summary = Summary()
    begin, started = time.perf_counter(), datetime.now(UTC)
    if job.tasks.num_rows:
        connect(config.address)
        begin = time.perf_counter()
        with metering.running():
            for counts in stream(job):
                summary.add(counts, time.perf_counter() - begin)
                metering.add_block(counts)
                if counts["maps_file"] and len(summary.overlays) < config.overlays - job.finished:
                    _draw(job, counts["maps_file"], summary)
                if progress:
                    progress(summary)
    ledger = read_ledger(store)
    store.tidy()
    summary.total = Total(ledger.images, ledger.maps.num_rows, ledger.errors.num_rows)
    store.write_json(FINISHED, _record(job, summary, started))
    return summary


def _draw(job: Job, name: str, summary: Summary) -> None:
    """Draw the images of a file of maps, until there are enough pictures."""
    for row in job.store.read_table(name).to_pylist():
        if len(summary.overlays) >= job.config.overlays - job.finished:
            return
        [content] = read_items([row["uri"]])
        if isinstance(content, Exception):
            continue
        caption = f"{row['target_name']}: p = {row['score']:.2f}, {row['num_kept']} of {row['num_patches']} windows"
        saliency = decode_map(row["saliency"]["bytes"], (row["height"], row["width"]))
        picture = overlay(decode(content, job.config.max_pixels), saliency, caption)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in row["image_id"].rsplit(".", 1)[0])[-80:]
        mark = hashlib.sha256(row["image_id"].encode()).hexdigest()[:6]
        name = f"overlays/{stem}-{mark}-{row['target']}.png"
        job.store.write(name, picture)
        summary.overlays.append(name)


def _record(job: Job, summary: Summary, started: datetime) -> dict[str, Any]:
    packages = ("sess-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "fsspec", "numpy")
    return {
        "config": job.config.public(),
        "model": {
            "name": job.model.name,
            "layer": job.model.layer,
            "input_size": job.model.input_size,
            "mean": job.model.mean,
            "std": job.model.std,
            "num_classes": job.model.num_classes,
            "weights_sha256": job.made_with["weights"],
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "started": started.isoformat(timespec="seconds"),
        "counts": {
            "inputs": job.inputs,
            "images": summary.total.images,
            "maps": summary.total.maps,
            "errors": summary.total.errors,
        },
        "this_run": {  # and the figures below; other runs on the same output have finished the rest
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
        "command": public_command(sys.argv),
    }
