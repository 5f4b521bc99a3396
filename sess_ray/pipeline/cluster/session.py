"""Connecting to Ray, or starting it inside this process."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sess_ray.access import one_line
from sess_ray.errors import RunError, SessError
from sess_ray.pipeline.cluster import embedded, quiet
from sess_ray.pipeline.cluster.settings import TASK_CPUS, actor_range
from sess_ray.pipeline.cluster.silence import heard, logger, whats_missing

# Read when ray is imported. Under `uv run`, Ray would have every worker build a second environment of its own; workers
# of the embedded Ray use the driver's.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

# Of Ray Data's: they print the traceback of an error in a worker, which whoever runs the job tells in a line.
TRACEBACKS = ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state")
SPARE_CPUS = 2  # for reading and writing, beside the actors: without them the plan waits for itself
KNOCK_SECONDS = 15
BLOCK_BYTES = 32 * 2**20  # some dozens of photographs: what a worker that dies takes with it
# One driver passes some 48 blocks a second, so many actors need large ones; 2 MiB are four photographs.
BYTES_PER_ACTOR, MAX_BLOCK_BYTES = 2 * 2**20, 2**30
# Of map_batches: whole blocks as Arrow tables, without a copy.
ARROW: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "zero_copy_batch": True}
OF_TASKS: dict[str, Any] = {**ARROW, "num_cpus": TASK_CPUS}

__all__ = [
    "ARROW",
    "OF_TASKS",
    "TASK_CPUS",
    "Workers",
    "arriving",
    "block_bytes",
    "connect",
    "fitting",
    "map_blocks",
    "pool",
    "resources_here",
    "start_early",
]

_connecting = threading.Lock()


def start_early(address: str | None) -> None:
    """Start Ray on this machine, where `connect` would, while the caller does something else.

    `connect` waits for it, and finds its errors again.

    Parameters
    ----------
    address : str or None
        As for `connect`. A cluster is there already.
    """
    if address or os.environ.get("RAY_ADDRESS"):
        return

    def start() -> None:
        with suppress(Exception):
            connect(None)
        threading.Event().wait()  # Linux ends what Ray has started when the thread that started it ends

    threading.Thread(target=start, daemon=True).start()


def connect(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine for this process alone.

    Parameters
    ----------
    address : str or None
        A cluster's; None takes ``RAY_ADDRESS``, which `ray job submit` sets, and else starts Ray here. A session that
        is already there is used as it is.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the embedded Ray listens to this machine alone
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with _connecting:
        _connect(address)


def _connect(address: str | None) -> None:
    import ray
    from ray.data import DataContext

    terminate = signal.getsignal(signal.SIGTERM)
    if not ray.is_initialized():
        try:
            if address:
                _knock(address)
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
            else:
                with embedded.starting():
                    ray.init(
                        address="local",
                        num_cpus=_own_cpus(),
                        include_dashboard=False,
                        logging_level=logging.ERROR,
                        log_to_driver=False,
                    )
        except Exception as error:
            place = f"connect to Ray at {address}" if address else "start Ray on this machine"
            raise RunError(f"cannot {place}: {one_line(error)}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray's own would end this process without a word
    quiet.of_retries()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.actor_init_retry_on_errors = True  # a GPU that another process is just leaving
    context.execution_no_progress_timeout_s = -1  # a block of a slow method takes hours, as may the wait for GPUs
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in TRACEBACKS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # says that its bars are off


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


@dataclass(frozen=True)
class Workers:
    """How many actors run, and what each takes.

    Attributes
    ----------
    low, high : int
        Actors, at least and at most.
    gpus, cpus : float
        Share of a GPU, and of a CPU, that each takes.
    note : str
        In a line, why they are fewer than was asked for; empty where they are not.
    """

    low: int
    high: int
    gpus: float
    cpus: float
    note: str = ""


def fitting(
    resources: Mapping[str, float],
    actors: str | None,
    gpus_per_actor: float | None,
    most: int | None,
    *,
    may_grow: bool = False,
) -> Workers:
    """Return how many actors run: as many as leave a CPU to read and write, or the run would wait for itself.

    Parameters
    ----------
    resources : mapping
        The cluster's, as Ray names them.
    actors : str or None
        N or MIN-MAX; without it, one for each GPU, or for each CPU where there is none.
    gpus_per_actor : float or None
        Without it, 1 where the cluster has GPUs.
    most : int or None
        More actors than this have nothing to do.
    may_grow : bool
        Whether this is a cluster, where actors of MIN-MAX may ask for machines that are not there yet.

    Raises
    ------
    SessError
        If there are fewer GPUs than one actor takes.
    """
    cpus, there = resources.get("CPU", 1), resources.get("GPU", 0)
    gpus = gpus_per_actor
    if gpus is None:
        gpus = 1.0 if there >= 1 else 0.0
    in_cluster, may_grow = may_grow, may_grow and "-" in (actors or "")
    if gpus and there < gpus and not may_grow:
        has = {0: "is no GPU", 1: "is 1 GPU"}.get(int(there), f"are {there:g} GPUs")
        hint = "give less" if there >= 1 else "leave it out"
        hint += ", or where they come when asked for use --actors MIN-MAX" if in_cluster else ""
        raise SessError(f"--gpus-per-actor {gpus:g}: there {has}: {hint}")
    room = max(1, int(there / gpus + 1e-6 if gpus else cpus - 1))
    low, high = actor_range(actors) or (0, 0)
    if not high:
        fit = room if gpus else max(1, int(cpus - SPARE_CPUS))
        low = high = max(1, fit if most is None else min(fit, most))
    note = ""
    if high > room and not may_grow:
        low, high = min(low, room), room
        unit, number = ("GPU", there) if gpus else ("CPU", cpus)
        has = f"there {'is' if number == 1 else 'are'}" if gpus else "Ray counts"
        has += f" {number:g} {unit}{'' if number == 1 else 's'}"
        has += f", {gpus:g} for each" if gpus else ", and one is left to read and write" if cpus > 1 else ""
        more = "; for machines that come when asked for, use MIN-MAX" if in_cluster else ""
        note = f"--actors {actors}: {high} will run ({has}){more}"
    share = 1.0
    if high + 1 > cpus and not may_grow:  # with a GPU an actor needs less of a CPU, and on one CPU all share it
        share = int(1e4 * max(cpus - 1, 0.4 * cpus) / high) / 1e4
    return Workers(low, high, gpus, min(1.0, share), note)


def resources_here() -> dict[str, float]:
    """Return the resources that Ray would find if it started on this machine."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks without starting CUDA, which no fork survives
    import torch

    return {"CPU": _own_cpus(), "GPU": torch.cuda.device_count()}


def block_bytes(actors: int) -> int:
    """Return how many bytes a block of pixels may have; among many actors it is more.

    >>> [block_bytes(actors) // 2**20 for actors in (1, 16, 64, 1000)]
    [32, 32, 128, 1024]
    """
    return min(MAX_BLOCK_BYTES, max(BLOCK_BYTES, actors * BYTES_PER_ACTOR))


def _own_cpus() -> int:
    return (os.cpu_count() or 1) + SPARE_CPUS


def map_blocks(dataset: Any, actor: type, **options: Any) -> Any:
    """Return what actors make of whole blocks, as `map_batches` does; also with GPUs.

    With GPUs `map_batches` refuses a batch of unknown size, lest it be taken to the device at once; ours is not. A size
    would join small blocks and cut large ones.
    """
    # What Ray's own map_groups calls; before 2.60 under another name, and without defaults.
    unchecked = getattr(dataset, "map_batches_internal", None) or dataset._map_batches_without_batch_size_validation
    known = inspect.signature(unchecked).parameters.values()
    unset = {one.name: None for one in known if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
    return unchecked(actor, **{**unset, **ARROW, **options, "udf_modifying_row_count": True})


def pool(
    actors: str | None, gpus_per_actor: float | None, most: int | None, address: str | None = None
) -> dict[str, Any]:
    """Return what map_batches takes of actors: how many run, and what each has; see `fitting` and `connect`."""
    import ray

    may_grow = bool(address or os.environ.get("RAY_ADDRESS"))
    found = fitting(ray.cluster_resources(), actors, gpus_per_actor, most, may_grow=may_grow)
    if found.note:
        logger.warning(found.note)
    # An actor imports torch for seconds. Without GPUs one starts when the others are at work: the driver, Ray and the
    # first images want a core too.
    first = found.low if found.gpus or may_grow else max(1, found.low - 1)
    return {
        "compute": ray.data.ActorPoolStrategy(min_size=first, max_size=found.high),
        "num_gpus": found.gpus,
        "num_cpus": found.cpus,
    }


def arriving(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset, each block's as soon as it is there: by default Ray holds one back for the next."""
    with embedded.running(), quiet.starting_actors():
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for block in heard(blocks, whats_missing):
            yield from block.to_pylist()
