"""The job that exports a run into another tool: a Ray Data graph from stored maps and their images to files.

shards (files of maps, or parts of them)   a line in the driver for each
  -> pack                                  CPU tasks; the files of a shard
what is said of all                        in the driver, export.json last
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from sess_ray.access import Access, public_command, use
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.output import versions
from sess_ray.pipeline.cluster.rows import Row, fetched
from sess_ray.pipeline.cluster.session import ARROW, arriving, connect
from sess_ray.pipeline.export.formats import FORMATS
from sess_ray.pipeline.export.prepare import DATASET, Export
from sess_ray.pipeline.export.samples import Recipe, Sample, samples

ERRORS = 100  # images that export.json names
PACKED = pa.schema(
    [
        ("number", pa.int64()),
        ("images", pa.int64()),
        ("maps", pa.int64()),
        ("damaged", pa.int64()),  # maps
        ("documents", pa.list_(pa.string())),
        ("left_out", pa.list_(pa.string())),  # images,
        ("reasons", pa.list_(pa.string())),  # and why
    ]
)


def pack(
    table: pa.Table, access: Access, run: str, output: str, to: str, recipe: Recipe, known: Any, shards: int
) -> pa.Table:
    """Write the files of a shard; return a row of `PACKED`."""
    use(access)
    [shard] = table.to_pylist()
    problems: dict[str, str] = {}
    counts = {"images": 0, "maps": 0, "damaged": 0}

    def counted(found: Iterable[Sample]) -> Iterator[Sample]:
        for sample in found:
            counts["images"] += 1
            counts["maps"] += len(sample.maps)
            counts["damaged"] += sample.damaged
            yield sample

    found = counted(samples(shard, Store(run), recipe, fetched(known), problems))
    documents = list(FORMATS[to].pack(found, Store(output), shard["number"], shards))
    told = {"number": shard["number"], **counts, "documents": documents}
    return pa.Table.from_pylist([{**told, "left_out": list(problems), "reasons": list(problems.values())}], PACKED)


def run(export: Export, progress: Callable[[int], None] | None = None) -> dict[str, str]:
    """Run an export to its end: the files of all shards, what is said of all, and, last, export.json.

    Parameters
    ----------
    export : Export
        What is written is counted in its `facts`.
    progress : callable, optional
        Called with the number of maps of each shard.

    Returns
    -------
    dict of str to str
        The first images that are left out, and why.
    """
    import ray

    config, store = export.config, export.store
    connect(config.address)
    store.clear(DATASET)
    given = {"access": config.access(), "run": Store(config.run).location, "output": store.location}
    given |= {"to": config.to, "recipe": export.recipe, "known": ray.put(export.known), "shards": len(export.blocks)}
    # It decodes and writes for longer than it waits.
    dataset = ray.data.from_blocks(export.blocks).map_batches(pack, fn_kwargs=given, **ARROW, num_cpus=1)
    return finish(export, arriving(dataset), progress)


def finish(export: Export, rows: Iterable[Row], progress: Callable[[int], None] | None = None) -> dict[str, str]:
    """Write what is said of all, as rows of `PACKED` come in any order; return what is left out, as `run` does."""
    facts, store = export.facts, export.store
    problems: dict[str, str] = {}

    def documents() -> Iterator[str]:
        for row in in_order(rows):
            facts.written.update({name: row[name] for name in ("images", "maps", "damaged")})
            facts.written["left_out"] += len(row["left_out"])
            left_out = zip(row["left_out"], row["reasons"], strict=True)
            problems.update(islice(left_out, ERRORS - len(problems)))
            if progress:
                progress(row["maps"])
            yield from row["documents"]

    FORMATS[export.config.to].finish(documents(), store, facts)
    record = {
        "config": export.config.public(),
        "counts": dict(facts.written),
        "left_out": problems,
        "run": facts.record,
        "versions": versions("sess-ray", "pyarrow", "pillow"),
        "command": public_command(sys.argv),
    }
    store.write_json("export.json", record)
    return problems


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows by their numbers, from 0 on, as soon as all before them are there."""
    waiting: dict[int, Row] = {}
    following = 0
    for row in rows:
        waiting[row["number"]] = row
        while following in waiting:
            yield waiting.pop(following)
            following += 1
