"""The explain job: a Ray Data graph from images to Parquet.

    tasks (id, uri, targets)      a table in the driver, less what the output holds, cut into blocks of a few images
      -> read_and_decode          CPU tasks; uint8 pixels, or an error
      -> ExplainActor             GPU actors; windows, scores, maps and fusion, all inside
      -> write                    CPU tasks; PNG and Parquet, then one line of counts for the driver

A row that fails anywhere carries its error on, and ends as a row of errors/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sess_ray import methods
from sess_ray.io.held import settled
from sess_ray.io.lease import Lease
from sess_ray.io.ledger import read_ledger
from sess_ray.io.store import FINISHED
from sess_ray.pipeline.cluster.session import OF_TASKS, arriving, block_bytes, connect, pool
from sess_ray.pipeline.explain import metering
from sess_ray.pipeline.explain.blocks import blocks, most_rows
from sess_ray.pipeline.explain.compacting import Compaction
from sess_ray.pipeline.explain.drawing import Pictures
from sess_ray.pipeline.explain.graph import explained
from sess_ray.pipeline.explain.prepare import Job, prepare
from sess_ray.pipeline.explain.record import Summary, Total, record
from sess_ray.pipeline.explain.stages import read_and_decode, write

EXAMPLES = 3  # errors that are told


def stream(job: Job, actor: type | None = None, compute: Any = None, lanes: int = 1) -> Iterator[dict[str, Any]]:
    """Run the graph; yield the counts of each block as soon as it is written.

    Ray must be connected. Block by block: images, maps, errors (and where each failed), windows, patches, kept, the
    files written, and how many actors there are at most. Where the graph itself is measured, `actor` and `compute`
    stand in for `ExplainActor` and its pool; an actor then takes so many blocks at a time as it has `lanes`.
    """
    import ray

    config, model = job.config, job.model
    workers = pool(config.actors, config.gpus_per_actor, job.left if job.countable else None, config.address)
    workers["compute"] = compute = compute or workers["compute"]
    options = {**config.explainer_options(), "method": methods.get(config.method)}
    access, needed = config.access(), config.needed(model.input_size)
    reading = {"access": access, "max_pixels": config.max_pixels, "needed": needed}
    reading["source"] = job.large.source if job.large else None
    writing = {"access": access, "output": job.store.location, "method": config.method, "model": model.name}

    lanes = compute.max_size * lanes
    most = most_rows(config, model.input_size, lanes)
    ray.data.DataContext.get_current().target_max_block_size = block_bytes(lanes)
    cut = job.large.lines(lanes, most) if job.large else blocks(job.tasks, lanes, most)
    decoded = ray.data.from_blocks(cut).map_batches(read_and_decode, fn_kwargs=reading, **OF_TASKS)
    maps = explained(decoded, model, options, workers, actor, job.large.declared if job.large else None)
    for counts in arriving(maps.map_batches(write, fn_kwargs=writing, **OF_TASKS)):
        yield {**counts, "actors": compute.max_size}


def run(job: Job, progress: Any = None, lease: Lease | None = None) -> Summary:
    """Run a job to its end: started.json, maps/, errors/, overlays/ and, last, run.json.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called with the `Summary` so far after each written block.
    lease : Lease, optional
        That the output is taken with; it is given back. Without it, one is taken here.

    Returns
    -------
    Summary

    Raises
    ------
    SessError
        If another run works on the output.
    RunError
        If one has taken it over.
    """
    with lease or Lease(wait=job.config.wait) as held:
        if not held.is_taken and held.take(job.store):
            job = prepare(job.config)  # what is left is what another run has left
        return _run(job, progress, held)


def _run(job: Job, progress: Any, lease: Lease) -> Summary:
    config, store = job.config, job.store
    job.start()
    summary, pictures = Summary(), Pictures(job)
    begin, started = time.perf_counter(), datetime.now(UTC)
    with Compaction(job) as compaction:
        if job.left:
            connect(config.address)
            begin = time.perf_counter()
            with metering.running():
                for counts in stream(job):
                    lease.check()
                    summary.add(counts, time.perf_counter() - begin)
                    metering.add_block(counts)
                    pictures.draw(counts["maps_file"])
                    if counts["errors_file"] and not summary.examples:
                        summary.examples = store.read_table(counts["errors_file"]).slice(0, EXAMPLES).to_pylist()
                    compaction.add(counts)
                    if progress:
                        progress(summary)
        lease.check()
        if job.large:
            compaction.finish({}, lease.check)
            found = settled(store, job.large.source.spans)
            summary.total = Total(found.images, found.maps, found.errors)
            compaction.finish(found.scattered, lease.check)
    if not job.large:
        ledger = read_ledger(store)
        summary.total = Total(ledger.images, ledger.maps.num_rows, ledger.errors.num_rows)
    store.tidy()
    if not pictures.are_enough:
        pictures.draw_finished(store.tables("maps"))
    summary.overlays = pictures.drawn
    store.write_json(FINISHED, record(job, summary, started))
    return summary
