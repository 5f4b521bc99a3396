"""What a job will take, before it runs: some images are looked at, and some explained on this machine, without Ray."""

from __future__ import annotations

import dataclasses
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.access import use
from sess_ray.engine.chosen import threshold
from sess_ray.errors import SessError
from sess_ray.io.decode import shrunk
from sess_ray.io.items import split_uri
from sess_ray.io.store import MAPS
from sess_ray.pipeline.cluster.session import SPARE_CPUS, block_bytes, connect, fitting, resources_here
from sess_ray.pipeline.cluster.silence import logger
from sess_ray.pipeline.estimate.sampling import Seen, Stratum, look
from sess_ray.pipeline.estimate.trial import PATIENCE, Image, Trials, least, measure
from sess_ray.pipeline.explain.blocks import block_sizes, most_rows
from sess_ray.pipeline.explain.prepare import Job
from sess_ray.pipeline.explain.stages import targets_of

if TYPE_CHECKING:
    from sess_ray.engine.sess import SESS
    from sess_ray.engine.targets import TargetSpec
    from sess_ray.models import Model

T = TypeVar("T")

MOST_DECODED = 32  # images
DECODE_SECONDS = 3.0
TOLD = 3  # images that cannot be explained
RETRY_SECONDS = 3.0  # for what fails in passing: a run has more patience


@dataclass(frozen=True)
class Estimate:
    """What a job will take. Of images that were finished before, nothing is in it.

    Attributes
    ----------
    images, errors, windows, maps : int
        Images that are left, those of them that will end in errors/, patches, rows of maps/.
    counted : bool
        Whether the number of images is known: tar shards do not say how many they hold.
    looked, measured : int
        Images whose size was read, and times that one was explained.
    output_bytes : int or None
        Size of maps/; None where no map was made in time.
    device : str
        That was measured.
    actors : int
    gpus : float
        That the actors take.
    seconds_per_image : float
        Time that an actor takes, while as many as share this machine's device are at work.
    at_least : bool
        Whether that is only a bound: with a slow method not even an image of one scale may end in time.
    task_seconds_per_image : float
        Time of a processor to read, decode, encode and write.
    start_seconds : float
        Until an engine was ready and warm, once for each actor; not in `seconds`.
    wrong : tuple of str
        The first images that were read and cannot be explained, each with the reason.
    seconds : float
        Time of the whole job.
    """

    images: int
    errors: int
    windows: int
    maps: int
    counted: bool
    looked: int
    measured: int
    output_bytes: int | None
    device: str
    actors: int
    gpus: float
    seconds_per_image: float
    at_least: bool
    task_seconds_per_image: float
    start_seconds: float
    wrong: tuple[str, ...]
    seconds: float


def estimate(job: Job, gpus: int | None = None) -> Estimate:
    """Estimate what a job will take, in a quarter of a minute. Nothing is written, and Ray is not started.

    Parameters
    ----------
    job : Job
    gpus : int, optional
        Devices like that of this machine; by default, those of the cluster, or of this machine where none is named.

    Raises
    ------
    SessError
        If nothing is left to explain, or none of the images that were tried can be explained.
    """
    from sess_ray.engine.sess import SESS

    config = job.config
    use(dataclasses.replace(config.access(), patience=RETRY_SECONDS))
    sess = SESS(job.model, device="cpu", **config.explainer_options())  # type: ignore[arg-type]
    limits = config.max_pixels, config.needed(job.model.input_size), job.begun
    strata, looking = _timed(look, job.tasks, lambda *size: sess.num_scored(sess.plan(*size)), *limits)
    for stratum in strata:
        stratum.images *= job.share
    seen = [one for stratum in strata for one in stratum.seen]
    decoded, decoding = _timed(_decode, seen, job)
    wrong = [f"{one.task['image_id']!r}: {one.error}" for one in seen if one.error] + decoded.errors
    if not decoded.images:
        none = f"none of the {len(seen):,} images that were looked at can be explained, the first: "
        none = "the one image that was looked at cannot be explained: " if len(seen) == 1 else none
        raise SessError(none + wrong[0] if wrong else "there is nothing to measure: no image is left")
    total, intact = sum(stratum.images for stratum in strata), len(decoded.images) / decoded.tried
    place = _place(job, gpus, total)
    trials = measure(job.model, config.explainer_options(), decoded.images, place.sharing)
    if trials.error and not trials.done:
        raise SessError(f"there is nothing to measure: {trials.error}")

    good = intact * sum(stratum.good for stratum in strata)
    windows = intact * sum(stratum.windows for stratum in strata)
    most = most_rows(config, job.model.input_size, place.actors)
    maps = good * fmean(_number_of_targets(targets, job.model) for _, _, targets in decoded.images)
    kept = fmean(least(sess, image, sess.num_scales)[1] for image in decoded.images) * maps / good
    seconds, at_least = _seconds(trials, windows / good + 1, kept, sess, decoded.images[0])
    encoding = [trial.encode_seconds / len(trial.rows) for trial in trials.done if trial.rows]
    tasks = looking / len(seen) + decoding / decoded.tried + fmean(encoding or [0]) * maps / good
    return Estimate(
        images=round(total),
        errors=round(total - good + job.share * (job.tasks.num_rows - job.tasks["error"].null_count)),
        windows=round(windows * _several(trials)),
        maps=round(maps),
        counted=not any(stratum.shards for stratum in strata),
        looked=len(seen),
        measured=sum(trial.whole for trial in trials.done),
        output_bytes=_output_bytes(trials, maps, *_files(strata, place.actors, most)),
        device=trials.device,
        actors=place.actors,
        gpus=place.gpus,
        seconds_per_image=seconds,
        at_least=at_least,
        task_seconds_per_image=tasks,
        start_seconds=trials.start_seconds,
        wrong=tuple(wrong[:TOLD]),
        seconds=good * max(seconds / place.actors, place.processor_seconds(seconds, tasks)),
    )


def _timed(function: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Return what a call returns, and the seconds of the processor that it took."""
    begin = time.process_time()
    return function(*arguments), time.process_time() - begin


# --- where it will run ---


@dataclass(frozen=True)
class _Place:
    """What a job will run on.

    Attributes
    ----------
    actors : int
    sharing : int
        How many of the actors would have this machine's device at the same time.
    gpus : float
        That all actors take.
    cpus : float or None
        For the tasks, and for actors without a GPU; None where nobody knows.
    """

    actors: int
    sharing: int
    gpus: float
    cpus: float | None

    def processor_seconds(self, actor: float, tasks: float) -> float:
        """Return how long the processors take for an image, that its actor and its tasks take so long for."""
        if self.cpus is None:
            return 0.0
        return tasks / max(1.0, self.cpus - self.actors) if self.gpus else (actor + tasks) / self.cpus


def _place(job: Job, gpus: int | None, images: float) -> _Place:
    config = job.config
    elsewhere = gpus is not None
    resources = resources_here()
    if elsewhere:
        resources = {**resources, "GPU": gpus or 0}
    elif config.address or os.environ.get("RAY_ADDRESS"):
        import ray

        connect(config.address)
        resources, elsewhere = ray.cluster_resources(), True
    workers = fitting(resources, config.actors, config.gpus_per_actor, ceil(images), may_grow=elsewhere)
    if workers.note:
        logger.warning(workers.note)
    actors, share = workers.high, workers.gpus
    cpus = None if gpus is not None else resources["CPU"] - (0 if elsewhere else SPARE_CPUS)
    sharing = int(1 / share) if 0 < share < 1 else 1 if share else os.cpu_count() or 1
    return _Place(actors, min(actors, sharing), actors * share, cpus)


# --- images, and what is made of them ---


@dataclass(frozen=True)
class _Decoded:
    images: list[Image]
    tried: int
    errors: list[str]


def _decode(seen: Sequence[Seen], job: Job) -> _Decoded:
    """Decode images, for some seconds: what is broken behind its header shows only so."""
    images: list[Image] = []
    errors: list[str] = []
    tried, end = 0, time.monotonic() + DECODE_SECONDS
    for one in seen:
        if tried == MOST_DECODED or time.monotonic() > end:
            break
        if one.content is not None and one.windows:
            tried += 1
            try:
                pixels, _ = shrunk(one.content, job.config.max_pixels, job.config.needed(job.model.input_size))
                images.append((one.task, pixels, _surely(targets_of(one.task, job.model))))
            except SessError as refused:
                errors.append(f"{one.task['image_id']!r}: {refused}")
    return _Decoded(images, tried, errors)


def _surely(targets: TargetSpec) -> TargetSpec:
    """Return targets whose number is known: of what is above a threshold, which an image may not have, one."""
    return targets if threshold(targets) is None else "top1"


def _number_of_targets(targets: str | list[tuple[int, ...]], model: Model) -> int:
    return min(int(targets[3:]), model.num_classes) if isinstance(targets, str) else len(targets)


def _several(trials: Trials) -> float:
    """Return how many windows are scored for all targets of an image, over those of one: guided, each has its own."""
    done = [trial for trial in trials.done if trial.whole] or trials.done
    return sum(trial.forwards for trial in done) / sum(trial.scored for trial in done) if done else 1.0


def _seconds(trials: Trials, scored: float, kept: float, sess: SESS, image: Image) -> tuple[float, bool]:
    """Return the seconds of an image with so many windows scored and kept, and whether that is only a bound."""
    whole = [trial for trial in trials.done if trial.whole]
    whole = [trial for trial in whole if trial.steady] or whole
    if whole:
        return scored * sum(trial.seconds for trial in whole) / sum(trial.scored for trial in whole), False
    if trials.done:
        seconds = np.array([trial.seconds for trial in trials.done])
        parts = np.array([[trial.scored, trial.kept] for trial in trials.done])
        costs, *_ = np.linalg.lstsq(parts / seconds[:, None], np.ones(len(seconds)), rcond=None)
        if costs.min() < 0:  # one of the two is lost in the noise beside the other
            costs = np.array([seconds.sum() / parts[:, 0].sum(), 0])
        return float(costs @ [scored, kept]), False
    few, fewer = least(sess, image)
    number = _number_of_targets(image[2], sess.model)
    return PATIENCE * min(scored / few, kept / (fewer * number)), True


def _files(strata: Sequence[Stratum], actors: int, most: int) -> tuple[float, float]:
    """Return the pixels of an image, and in how many files the maps are written: one for each block."""
    sizes = [one.height * one.width for stratum in strata for one in stratum.seen if one.windows]
    pixels = fmean(sizes)
    files = 0.0
    for stratum in strata:
        packed = split_uri(stratum.seen[0].task["uri"])[1] is not None
        in_shards = [stratum.good / stratum.shards] * stratum.shards if stratum.shards else ()
        blocks = in_shards or block_sizes(ceil(stratum.good), actors, most, packed=packed)
        files += sum(ceil(rows * 3 * pixels / block_bytes(actors)) for rows in blocks)
    return pixels, files


def _output_bytes(trials: Trials, maps: float, pixels: float, files: float) -> int | None:
    """Return the bytes of the maps as Parquet: of the PNGs by their pixels, and what comes to a row, and to a file."""
    done = [trial for trial in trials.done if trial.whole] or trials.done
    rows = [row for trial in done for row in trial.rows]
    if not rows:
        return None
    png = sum(len(row["saliency"]["bytes"]) for row in rows)
    mapped = sum(trial.pixels * len(trial.rows) for trial in done)
    one, all_ = (_parquet_bytes(some) for some in (rows[:1], rows))
    per_row = max(0.0, (all_ - one) / max(1, len(rows) - 1))
    return round(maps * (png / mapped * pixels + per_row) + files * (one - per_row))


def _parquet_bytes(rows: list[dict[str, Any]]) -> int:
    """Return what the rows take as a file, without their PNGs."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, MAPS), buffer)
    return len(buffer.getvalue()) - sum(len(row["saliency"]["bytes"]) for row in rows)
