"""What the engine takes on this machine: images explained for some seconds, in as many processes as actors share it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sess_ray.access import one_line
from sess_ray.pipeline.explain.stages import map_rows, succeeded

if TYPE_CHECKING:
    from sess_ray.engine.explanation import Explanation
    from sess_ray.engine.sess import SESS
    from sess_ray.models import Model

SECONDS = 6.0
PATIENCE = 14.0  # then a process is ended in the middle of its image
STEPS = (1, 2, 4, 8)  # scales, before all of them: a slow method may never come to the end of an image

Image = tuple[dict[str, Any], np.ndarray, Any]  # the task, the pixels, what to explain


@dataclass(frozen=True)
class Trial:
    """What one image took.

    Attributes
    ----------
    scored, forwards, kept : int
        Windows that are scored for one target, and for all of them together, with the whole image; and those that
        survive the pre-filter, over all targets.
    seconds : float
        As an actor counts them.
    encode_seconds : float
        Time of the processor to make PNGs of the maps.
    pixels : int
    rows : list of dict
        Rows of maps/, as far as they differ from image to image.
    whole : bool
        Whether these were all scales.
    steady : bool
        Whether it was not the first of its process: that one pays for memory, and for windows of the second.
    """

    scored: int
    forwards: int
    kept: int
    seconds: float
    encode_seconds: float
    pixels: int
    rows: list[dict[str, Any]] = field(repr=False)
    whole: bool
    steady: bool = False


@dataclass
class Trials:
    """What the images of a measurement took.

    Attributes
    ----------
    done : list of Trial
    device : str
    start_seconds : float
        Until the engine was ready and warm.
    error : str
        That one of the images has raised.
    """

    done: list[Trial] = field(default_factory=list)
    device: str = ""
    start_seconds: float = 0.0
    error: str = ""


def threads() -> int:
    """Return the threads that torch has in an actor: Ray gives each one for each of its CPUs, which is one."""
    return int(os.environ.get("OMP_NUM_THREADS") or 1)


def measure(model: Model, options: dict[str, Any], images: Sequence[Image], processes: int) -> Trials:
    """Explain images for some seconds, in several processes at the same time.

    They are forked: they have the model and the pixels at once, and a method that hangs can be ended. Where they are to
    have several threads they are started anew: a fork of a process that has used OpenMP's waits for them for ever.
    """
    context: Any = multiprocessing.get_context("fork" if threads() == 1 else "spawn")
    found = Trials()
    readers: list[Connection] = []
    workers: list[multiprocessing.process.BaseProcess] = []
    end = time.monotonic() + PATIENCE
    try:
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            own = [*images[number % len(images) :], *images[: number % len(images)]]
            worker = context.Process(target=_work, args=(writer, model, options, own), daemon=True)
            worker.start()
            writer.close()  # this process's: when the other's is closed too, the pipe has an end
            workers.append(worker)
            readers.append(reader)
        while readers and (left := end - time.monotonic()) > 0:
            for ready in cast("list[Connection]", wait(readers, left)):
                try:
                    _take(found, ready.recv())
                except EOFError:
                    readers.remove(ready)
    finally:
        for process in workers:
            process.kill()
            process.join()
    return found


def _take(found: Trials, message: Any) -> None:
    match message:
        case Trial():
            found.done.append(message)
        case ("device", name):
            found.device = name
        case ("warm", seconds):
            found.start_seconds = max(seconds, found.start_seconds)
        case ("error", text):
            found.error = found.error or text


def _work(writer: Connection, model: Model, options: dict[str, Any], images: list[Image]) -> None:
    """Measure, in a process of its own, and tell of each image as soon as it is done."""
    # Ctrl-C goes to all processes of a terminal; the first ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch

    from sess_ray.engine.sess import SESS

    begin = time.perf_counter()
    torch.set_num_threads(threads())
    try:
        sess = SESS(model, **options)
        writer.send(("device", _named(sess.device)))
        _explain(_with_scales(sess, STEPS[0]), images[0])
        writer.send(("warm", time.perf_counter() - begin))
        for trial in _trials(sess, images, time.monotonic() + SECONDS):
            writer.send(trial)
    except Exception as error:
        writer.send(("error", one_line(error)))
    writer.close()


def _named(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _trials(sess: SESS, images: list[Image], end: float) -> Iterator[Trial]:
    """Explain with more and more scales while there is time; then, with all of them, image after image."""

    def fits(trial: Trial, scales: int | None, times: float = 1) -> bool:
        return times * trial.seconds * _ratio(sess, images[0], trial, scales) < end - time.monotonic()

    if sess.num_scales is not None and sess.num_scales > STEPS[0]:
        for scales in (step for step in STEPS if step < sess.num_scales):
            trial = _explain(_with_scales(sess, scales), images[0])
            yield trial
            if fits(trial, sess.num_scales, times=3):
                break
            if not fits(trial, min(2 * scales, sess.num_scales)):
                return
        if not fits(trial, sess.num_scales):
            return
    yield from _whole(sess, images, end)


def _whole(sess: SESS, images: list[Image], end: float) -> Iterator[Trial]:
    """Explain with all scales as an actor does: the windows of many images share batches."""
    begin = time.perf_counter()
    slowest = 0.0
    for number, explanations in sess.stream((pixels, targets) for _, pixels, targets in cycle(images)):
        seconds = time.perf_counter() - begin
        slowest = max(slowest, seconds)
        trial = _trial(images[number % len(images)], explanations, seconds, whole=True, rows=number < len(images))
        yield replace(trial, steady=number > 0)
        if time.monotonic() + slowest > end:
            return
        begin = time.perf_counter()


def _explain(sess: SESS, image: Image) -> Trial:
    begin = time.perf_counter()
    [explanations] = sess.explain([image[1]], [image[2]])
    return _trial(image, explanations, time.perf_counter() - begin, whole=False)


def _trial(image: Image, explanations: list[Explanation], seconds: float, *, whole: bool, rows: bool = True) -> Trial:
    task, pixels, _ = image
    begin = time.process_time()
    height, width = pixels.shape[:2]
    explained = succeeded({**task, "height": height, "width": width}, explanations, seconds)
    maps = map_rows(explained, method="", model="")
    return Trial(
        scored=explanations[0].num_scored + 1,
        forwards=explanations[0].num_forwards + 1,
        kept=sum(explanation.num_kept for explanation in explanations),
        seconds=seconds,
        encode_seconds=time.process_time() - begin,
        pixels=height * width,
        rows=maps if rows else [],
        whole=whole,
    )


def _with_scales(sess: SESS, scales: int) -> SESS:
    return sess.with_scales(scales) if sess.num_scales is not None else sess


def _ratio(sess: SESS, image: Image, trial: Trial, scales: int | None) -> float:
    """Return how much longer than a trial an image with more scales takes at most."""
    scored, kept = least(sess, image, scales)
    return max(scored / trial.scored, kept * len(trial.rows) / trial.kept)


def least(sess: SESS, image: Image, scales: int | None = STEPS[0]) -> tuple[int, int]:
    """Return how many windows of an image are scored, and kept for each target, with so many scales."""
    from sess_ray.engine.fusion import num_kept

    plan = _with_scales(sess, scales or 1).plan(*image[1].shape[:2])
    return sess.num_scored(plan) + 1, num_kept(plan.num_patches, sess.pre_filter_ratio)
