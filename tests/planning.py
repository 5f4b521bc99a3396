"""What a million images cost before the first one is read: `python -m tests.planning --ids 1000000`.

Half of them are in the output already, in files of 32 rows. Prints the seconds and the peak memory of the driver's
steps; with --images, also when a job over so many small files writes its first rows.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.io import spans
from sess_ray.io.items import CHUNK
from sess_ray.io.ledger import read_ledger
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.explain.blocks import blocks
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare

ROOT = Path(__file__).parents[1]
ROWS = 32
MODEL = "tests.fragile:model"


def name(number: int) -> str:
    return f"{number % 1000:03}/photograph-{number:08}.jpg"


def write_manifest(path: Path, count: int) -> None:
    schema = pa.schema([("uri", pa.string()), ("id", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, count, CHUNK):
            ids = [name(number) for number in range(first, min(first + CHUNK, count))]
            uris = [f"s3://bucket/photographs/{found}" for found in ids]
            writer.write_table(pa.table({"uri": uris, "id": ids}, schema))


def write_output(store: Store, count: int) -> None:
    """Leave an output as a stopped run leaves it; maps of one pixel, so that only the ids weigh."""
    for first in range(0, count, ROWS):
        rows = [{"image_id": name(number), "target": 1} for number in range(first, min(first + ROWS, count))]
        store.write_table("maps", pa.Table.from_pylist(rows, MAPS))


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan(folder: Path, count: int) -> None:
    spans.LARGE = count + 1  # the ids shall be held; `tests.scale.spans` measures how it is without
    manifest, output = folder / "manifest.parquet", folder / "out"
    write_manifest(manifest, count)
    config = ExplainConfig(input=str(manifest), output=str(output), model=MODEL, targets="top1")
    print(f"before: {peak():.0f} MiB")
    begin = time.perf_counter()
    job = prepare(config)
    print(
        f"plan {job.tasks.num_rows} images of an unused output: {time.perf_counter() - begin:.1f} s, {peak():.0f} MiB"
    )
    begin = time.perf_counter()
    found = blocks(job.tasks, 64)
    print(f"cut them into {len(found)} blocks: {time.perf_counter() - begin:.1f} s, {peak():.0f} MiB")
    store = Store(str(output))
    job.start()
    write_output(store, count // 2)
    begin = time.perf_counter()
    ledger = read_ledger(store)
    seconds = time.perf_counter() - begin
    print(f"read {ledger.maps.num_rows} ids of {len(store.tables('maps'))} files: {seconds:.1f} s, {peak():.0f} MiB")
    begin = time.perf_counter()
    job = prepare(config)
    print(f"plan the {job.tasks.num_rows} that are left: {time.perf_counter() - begin:.1f} s, {peak():.0f} MiB")


def start(folder: Path, count: int) -> None:
    """Say when the first rows of `count` small files are there; the job is stopped then."""
    import numpy as np
    from PIL import Image

    images, output = folder / "images", folder / "started"
    pixels = np.random.default_rng(0).integers(0, 200, (16, 16, 3), np.uint8)
    for number in range(count):
        path = images / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 64:
            Image.fromarray(pixels + number % 40).save(path)
        else:
            path.hardlink_to(images / name(number % 64))
    command = [sys.executable, ROOT / "jobs" / "explain_dataset.py", "--input", images, "--output", output]
    settings = ["--model", MODEL, "--targets", "top1", "--num-scales", "0", "--overlays", "0"]
    begin = time.perf_counter()
    running = subprocess.Popen([*map(str, command), *settings], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not any((output / "maps").glob("*.parquet")) and running.poll() is None:
        time.sleep(0.05)
    print(f"first rows of {count} files: {time.perf_counter() - begin:.1f} s after the command")
    begin = time.perf_counter()
    running.send_signal(signal.SIGINT)
    code = running.wait()
    print(f"stopped by Ctrl-C, exit code {code}: {time.perf_counter() - begin:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=0)
    parser.add_argument("--images", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.ids:
            plan(Path(folder), given.ids)
        if given.images:
            start(Path(folder), given.images)


if __name__ == "__main__":
    main()
