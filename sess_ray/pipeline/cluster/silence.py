"""Saying what a run waits for, when nothing comes for a while."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sess_ray.pipeline.cluster.settings import TASK_CPUS

T = TypeVar("T")

SECONDS = 60.0  # then 120 more, 240, ...: a block of a slow method takes hours

logger = logging.getLogger("sess_ray")  # where nobody has set logging up, its warnings are lines on stderr


def heard(items: Iterable[T], say: Callable[[], str], seconds: float | None = None) -> Iterator[T]:
    """Yield items; where one does not come for a while, log what `say` returns."""
    iterator = iter(items)
    while True:
        with _alarm(say, SECONDS if seconds is None else seconds):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def _alarm(say: Callable[[], str], seconds: float) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        wait, waited = seconds, 0.0
        while not over.wait(wait):
            waited += wait
            wait *= 2
            try:
                reason = say()
            except Exception as error:  # the cluster may be gone; what waits for it will say so itself
                reason = f"the cluster does not answer: {type(error).__name__}"
            logger.warning("nothing was written for %.0f s: %s", waited, reason)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()


def whats_missing() -> str:
    """Return what a run on the connected cluster waits for, as far as the cluster's free resources tell."""
    import ray

    return missing(ray.cluster_resources(), ray.available_resources())


def missing(there: dict[str, Any], free: dict[str, Any]) -> str:
    """Return what a run waits for.

    Parameters
    ----------
    there, free : dict
        Resources of the cluster, as Ray names them.

    Examples
    --------
    >>> missing({"CPU": 2.0}, {"CPU": 0.1})
    'it waits for a CPU to read or write, 0.1 of 2 are free: other work has them, or it has too many --actors'
    >>> missing({}, {})
    'it waits for a machine: the cluster has no CPU'
    >>> missing({"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.5})
    'its actors are at work or starting (2.5 of 4 CPUs and 0 of 1 GPUs are free)'
    """
    cpus, cpus_free = there.get("CPU", 0.0), free.get("CPU", 0.0)
    if not cpus:
        return "it waits for a machine: the cluster has no CPU"
    if cpus_free < TASK_CPUS:
        return (
            f"it waits for a CPU to read or write, {cpus_free:g} of {cpus:g} are free:"
            " other work has them, or it has too many --actors"
        )
    gpus = f" and {free.get('GPU', 0.0):g} of {there['GPU']:g} GPUs" if there.get("GPU") else ""
    return f"its actors are at work or starting ({cpus_free:g} of {cpus:g} CPUs{gpus} are free)"
