"""What it takes to join the files of a span: `python -m tests.scale.compaction --rows 16384 --kilobytes 20`.

The files are as a run leaves them, with maps that are noise of a size; a process of its own joins them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.io.compaction import compact
from sess_ray.io.held import held
from sess_ray.io.pieces import piece
from sess_ray.io.spans import Spans
from sess_ray.io.store import MAPS, Store


def leave(folder: Path, rows: int, per_file: int, size: int) -> Spans:
    """Write a manifest of one span, and the maps of its images in files of some."""
    ids = [f"photograph-{row:09}.jpg" for row in range(rows)]
    pq.write_table(pa.table({"uri": ids, "id": ids}), folder / "m.parquet")
    rng, store = np.random.default_rng(0), Store(str(folder / "out"))
    for first in range(0, rows, per_file):
        own = range(first, min(first + per_file, rows))
        maps = [
            {"image_id": ids[row], "target": 1, "saliency": {"bytes": rng.bytes(size), "path": None}} for row in own
        ]
        store.replace_table("maps", piece(0, own, len(own), len(own)).stem, pa.Table.from_pylist(maps, MAPS))
    return Spans(str(folder / "m.parquet"), rows, rows, "")


def join(folder: Path, spans: Spans) -> None:
    store = Store(str(folder / "out"))
    [files] = held(store, spans).scattered.values()
    size = sum(os.path.getsize(store.path(name)) for name in files)
    before, begin, used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    compact(store, spans, 0, files)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(files)} files of {size / 1e6:.0f} MB joined in {seconds:.1f} s, {used:.1f} s of CPU;"
        f" peak memory {peak / 1024:.0f} MiB, {before / 1024:.0f} before"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--rows-per-file", type=int, default=59)
    parser.add_argument("--kilobytes", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spans = leave(Path(folder), given.rows, given.rows_per_file, given.kilobytes * 1000)
        process = multiprocessing.get_context("spawn").Process(target=join, args=(Path(folder), spans))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
