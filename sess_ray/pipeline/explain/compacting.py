"""Joining the files of finished spans while a run goes on, and at its end: in tasks of Ray beside its graph."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from types import TracebackType
from typing import Any, Self

from sess_ray.access import Access, one_line, use
from sess_ray.io.compaction import USUAL, Limits, compact
from sess_ray.io.cuts import Cut
from sess_ray.io.held import Tally
from sess_ray.io.pieces import Piece, piece_of
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.session import connect
from sess_ray.pipeline.explain.prepare import Job

CPUS_PER_TASK = 8  # of the cluster: lest reading and writing wait
QUIET = 30.0  # seconds, in the end, until it is said what goes on
FAILURES = 3  # after which no more is tried
LOOK = 1.0  # seconds between two looks at the lease, in the end

logger = logging.getLogger("sess_ray")


class Compaction:
    """Joins the files of each span as soon as its last one is written; where there are no spans, nothing.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tallies: dict[int, Tally] = {}
        self._waiting: deque[tuple[int, Sequence[str]]] = deque()
        self._running: list[Any] = []
        self._started = count()
        self._task: Any = None
        self._failures = 0
        for name in chain.from_iterable(job.large.held.files.values()) if job.large else ():
            if one := piece_of(name):
                self._add(name, one)

    def add(self, counts: Mapping[str, Any]) -> None:
        """Note the files of a block, as `stages.write` says them."""
        if self._job.large is None:
            return
        for name in filter(None, (counts["maps_file"], counts["errors_file"])):
            one = piece_of(name)
            if one and self._add(name, one).is_whole(self._job.large.source.spans, one.span):
                tally = self._tallies.pop(one.span)
                if tally.is_scattered:
                    self._waiting.append((one.span, tally.files))
        self._go_on()

    def finish(self, scattered: Mapping[int, Sequence[str]], check: Callable[[], None]) -> None:
        """Join what is left, and the files of other spans.

        Parameters
        ----------
        scattered : mapping of int to sequence of str
            The files of finished spans that have some in a folder that are to be joined.
        check : callable
            Called about once a second until then; raises an error if this run has lost the output.
        """
        self._waiting.extend(scattered.items())
        quiet = time.monotonic() + QUIET
        while self._waiting or self._running:
            if time.monotonic() > quiet:
                logger.warning(
                    "files of finished spans are being joined: %d spans left", len(self._waiting) + len(self._running)
                )
                quiet += QUIET
            check()
            connect(self._job.config.address)
            self._go_on(LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what is not finished: what is written stays, and another run goes on with it."""
        if self._running:
            import ray

            for task in self._running:
                ray.cancel(task, force=True)

    def _add(self, name: str, one: Piece) -> Tally:
        tally = self._tallies.setdefault(one.span, Tally())
        tally.add(name, one)
        return tally

    def _go_on(self, seconds: float = 0.0) -> None:
        """Look which tasks are done, and start as many as may run; with `seconds` wait so long for one."""
        import ray

        if self._running:
            done, self._running = ray.wait(self._running, num_returns=len(self._running), timeout=0)
            for task in done:
                self._look(task)
        if self._failures >= FAILURES:  # there is no room, or no right to write
            self._waiting.clear()
        most = max(1, int(ray.cluster_resources().get("CPU", 1) / CPUS_PER_TASK)) if self._waiting else 0
        while self._waiting and len(self._running) < most:
            self._running.append(self._start(*self._waiting.popleft()))
        if self._running and seconds:
            ray.wait(self._running, timeout=seconds)

    def _start(self, span: int, files: Sequence[str]) -> Any:
        """Start a task that takes nothing of what the graph reckons with, and so waits for nothing."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {}
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if nodes:  # else such a task may run on a head that is kept free of work
            node = nodes[next(self._started) % len(nodes)]
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        job = self._job
        assert job.large
        given = (job.config.access(), job.store.location, job.large.source.spans, span, files, USUAL)
        self._task = self._task or ray.remote(num_cpus=0)(compact_span)  # one, which Ray hands out once
        return self._task.options(**options).remote(*given)

    def _look(self, task: Any) -> None:
        """See whether a task has failed: then what it should have joined stays as it is."""
        import ray

        try:
            ray.get(task)
        except Exception as error:
            cause = getattr(error, "cause", error)
            if not self._failures:
                logger.warning("files of a finished span are not joined, and stay small: %s", one_line(cause))
            self._failures += 1


def compact_span(access: Access, output: str, cut: Cut, span: int, files: Sequence[str], limits: Limits) -> None:
    """Join the files of a span, in a process of its own; nothing where another run has done it."""
    use(access)
    with suppress(FileNotFoundError):
        compact(Store(output), cut, span, files, limits)
