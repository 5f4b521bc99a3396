"""What a run over a very large manifest costs before its first image: `python -m tests.scale.spans --rows 10000000`.

Half of the images are in the output already. The command is started as a person starts it; printed are the seconds from
there to the first new rows, and the peak memory of its process till then and some seconds later, when it is stopped by
Ctrl-C. What is in the files of the finished half does not matter: no run opens them, so they are links to one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sess_ray.io.pieces import piece, piece_of
from sess_ray.io.spans import Spans
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.explain.blocks import MAX_BLOCK_ROWS
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare

ROOT = Path(__file__).parents[2]
FILES = 64  # images that all rows name
GROUP = 65_536  # rows
MOST_LINKS = 50_000  # of a file: file systems have a limit
ON = 10  # seconds after the first rows
SETTINGS = {"model": "tests.fragile:model", "targets": "top1", "num_scales": 0, "overlays": 0}


def write_manifest(folder: Path, count: int) -> Path:
    """Write a manifest of images under names of their own; they lie in 64 files."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        Image.fromarray(rng.integers(0, 200, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    schema = pa.schema([("uri", pa.string()), ("id", pa.string())])
    with pq.ParquetWriter(folder / "manifest.parquet", schema) as writer:
        for first in range(0, count, GROUP):
            rows = range(first, min(first + GROUP, count))
            ids = [f"{row % 1000:03}/photograph-{row:09}.jpg" for row in rows]
            uris = [f"{folder}/{row % FILES}.png" for row in rows]
            writer.write_table(pa.table({"uri": uris, "id": ids}, schema))
    return folder / "manifest.parquet"


def write_output(store: Store, spans: Spans, rows_per_file: int) -> int:
    """Leave every second span as a finished run leaves it; return how many files that are."""
    store.replace_table("maps", "one", pa.Table.from_pylist([{"image_id": "one", "target": 1}], MAPS))
    one, files = Path(store.path("maps/one.parquet")), 0
    last = one
    for span in range(0, spans.count, 2):
        begin, end = spans.bounds(span)
        for first in range(begin, end, rows_per_file):
            rows = range(first, min(first + rows_per_file, end))
            files += 1
            last = linked(last, one.with_name(f"{piece(span, rows, len(rows), len(rows)).stem}.parquet"), files)
    one.unlink()
    return files


def linked(last: Path, path: Path, number: int) -> Path:
    """Make a file that is another one, the `number`-th; return the file that the next one is linked to."""
    if number % MOST_LINKS:
        os.link(last, path)
        return last
    shutil.copy(last, path)
    return path


def peak(process: int) -> float:
    """Return the peak memory of a process so far in MiB."""
    [line] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measure(given: Path, output: Path, is_new: Callable[[str], bool]) -> None:
    """Run the command on an input until an output has files that are new, and some seconds longer."""
    flags = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, ROOT / "jobs" / "explain_dataset.py", "--input", given, "--output", output, *flags]
    begin = time.perf_counter()
    running = subprocess.Popen([*map(str, command)], cwd=ROOT)
    while not any(is_new(entry.name) for entry in os.scandir(output / "maps")) and running.poll() is None:
        time.sleep(0.1)
    seconds, memory = time.perf_counter() - begin, peak(running.pid)
    used = psutil.Process(running.pid).cpu_times()
    time.sleep(ON)
    later = peak(running.pid)
    running.send_signal(signal.SIGINT)
    code = running.wait()
    print(
        f"first rows after {seconds:.1f} s ({used.user + used.system:.1f} s of CPU in the driver);"
        f" peak of the driver {memory:.0f} MiB, {ON} s later {later:.0f} MiB ({code})"
    )


def plan(given: Path, output: Path, what: str) -> None:
    """Say what the driver's own steps take for an input of rows or shards, which a busy machine does not change."""
    before, begin = peak(os.getpid()), time.process_time()
    job = prepare(ExplainConfig(input=str(given), output=str(output), **SETTINGS))
    planned = time.process_time() - begin
    assert job.large
    found = job.large.lines(1, MAX_BLOCK_ROWS)
    seconds = time.process_time() - begin
    print(
        f"{job.left} {what} left in {len(found)} lines: {planned:.1f} and {seconds - planned:.1f} s of CPU,"
        f" {before:.0f} MiB before and {peak(os.getpid()):.0f} after",
        flush=True,
    )


def _is_unfinished(name: str) -> bool:
    """Say whether a file is of a span that was not finished."""
    one = piece_of(name)
    return one is not None and one.span % 2 == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-per-file", type=int, default=256)
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = write_manifest(Path(folder), given.rows), Path(folder, "out")
        job = prepare(ExplainConfig(input=str(manifest), output=str(output), **SETTINGS))
        job.start()
        assert job.large
        files = write_output(job.store, job.large.source.spans, given.rows_per_file)
        print(
            f"{given.rows} rows, {job.large.source.spans.count} spans, {files} files of the finished half", flush=True
        )
        plan(manifest, output, "rows")
        for _ in range(given.times):
            measure(manifest, output, _is_unfinished)
            for path in Path(output, "maps").iterdir():
                if piece_of(path.name) is None or _is_unfinished(path.name):
                    path.unlink()


if __name__ == "__main__":
    main()
