"""Blocks that have cost workers their lives: each row in a process of its own, which may die of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

Blocks = Callable[[pa.Table], Iterable[pa.Table]]
DEATHS = 2  # before rows go apart: the machine may have gone, or another block of the worker be to blame
TRIES = 2
REASON = "every worker died of it: memory ended, or a library crashed"


def deadly() -> bool:
    """Return whether workers have died of the block at hand, again and again; False outside of Ray's workers."""
    import ray

    worker = ray._private.worker.global_worker
    if worker.mode != ray._private.worker.WORKER_MODE:
        return False
    # Nothing public says it; of a Ray that does not know it either, blocks are tried for ever.
    attempts = getattr(worker.core_worker, "get_current_task_attempt_number", int)
    return attempts() >= DEATHS


def survived(
    table: pa.Table,
    function: Blocks,
    make: Callable[[], Blocks],
    lost: Callable[[pa.Table], pa.Table],
    rows: Callable[[pa.Table], Iterable[pa.Table]] | None = None,
) -> Iterator[pa.Table]:
    """Yield what a function makes of a block; where workers have died of it, of each of its rows `apart`.

    Parameters
    ----------
    table : pa.Table
        The block.
    function : callable
    make, lost : callable
        As for `apart`.
    rows : callable, optional
        Cuts the block into tables of a row; by default `rows_of`.
    """
    yield from apart(make, (rows or rows_of)(table), lost) if deadly() else function(table)


def apart(
    make: Callable[[], Blocks], rows: Iterable[pa.Table], lost: Callable[[pa.Table], pa.Table]
) -> Iterator[pa.Table]:
    """Yield what a function makes of each row alone; where that kills its process each time, what stands for it.

    Parameters
    ----------
    make : callable
        Makes the function, in the process that gets the rows.
    rows : iterable of pa.Table
        Tables of one row; see `rows_of`.
    lost : callable
        A row to what stands for it, which says `REASON`.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError

    process = None
    for row in rows:
        for attempt in range(1, TRIES + 1):
            process = process or _started(make)
            try:
                yield from ray.get(process.blocks.remote(row))
                break
            except (RayActorError, OutOfMemoryError):
                process = None
                if attempt == TRIES:
                    yield lost(row)


def rows_of(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into rows."""
    return (table.slice(index, 1) for index in range(table.num_rows))


def _started(make: Callable[[], Blocks]) -> Any:
    """Return a process on this machine that takes nothing of what Ray shares out: its caller waits for it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    process = ray.remote(_Process).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote(make)
    ray.get(process.ready.remote())  # what fails here is not the row's fault
    return process


class _Process:
    def __init__(self, make: Callable[[], Blocks]) -> None:
        self._function = make()

    def ready(self) -> None:
        """Return when it has started."""

    def blocks(self, table: pa.Table) -> list[pa.Table]:
        return list(self._function(table))
