"""What a run says while it runs: Prometheus' counters, at the metrics endpoint that each Ray node has.

Images, maps, errors and patches are counted by the driver, once for each written block, so that they are what run.json
says in the end. Seconds are counted where they are spent; of a worker that dies, the last ones may be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple, TypeVar


class Metered(NamedTuple):
    """A metric: Ray puts ``ray_`` in front of its name, and ``_total`` behind that of a counter."""

    kind: str
    text: str
    tags: tuple[str, ...] = ()


METRICS = {
    "sess_running": Metered("gauge", "1 while a run explains images"),
    "sess_images": Metered("counter", "Images explained"),
    "sess_maps": Metered("counter", "Maps written, one for each image and target"),
    "sess_errors": Metered("counter", "Images that could not be explained, by where they failed", ("stage",)),
    "sess_patches_scored": Metered("counter", "Windows scored, once for all targets of an image"),
    "sess_patches_kept": Metered("counter", "Windows that the pre-filter kept, over all maps"),
    "sess_stage_seconds": Metered("counter", "Seconds that workers spent in a stage", ("stage",)),
}
STAGES = ("read", "decode", "explain", "write")

T = TypeVar("T")


def exported(name: str) -> str:
    """Return the name that Prometheus sees.

    >>> exported("sess_images"), exported("sess_running")
    ('ray_sess_images_total', 'ray_sess_running')
    """
    return f"ray_{name}_total" if METRICS[name].kind == "counter" else f"ray_{name}"


@cache
def _metric(name: str) -> Any:
    from ray.util import metrics

    made = {"counter": metrics.Counter, "gauge": metrics.Gauge}[METRICS[name].kind]
    return made(name, METRICS[name].text, METRICS[name].tags)


def add(name: str, value: float, **tags: str) -> None:
    """Add to a counter."""
    if value > 0:
        _metric(name).inc(value, tags)


def add_block(counts: dict[str, Any]) -> None:
    """Add what a written block holds, as `stages.write` counts it."""
    add("sess_images", counts["images"])
    add("sess_maps", counts["maps"])
    add("sess_patches_scored", counts["windows"])
    add("sess_patches_kept", counts["kept"])
    for stage, number in Counter(counts["failed"]).items():
        add("sess_errors", number, stage=stage)


@contextmanager
def running() -> Iterator[None]:
    """Say that a run is on."""
    _metric("sess_running").set(1)
    try:
        yield
    finally:
        _metric("sess_running").set(0)


@contextmanager
def spent(stage: str) -> Iterator[None]:
    """Count the seconds that something takes."""
    begin = perf_counter()
    try:
        yield
    finally:
        add("sess_stage_seconds", perf_counter() - begin, stage=stage)


def waited(stage: str, items: Iterable[T]) -> Iterator[T]:
    """Count the seconds that items are waited for."""
    iterator = iter(items)
    while True:
        with spent(stage):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
