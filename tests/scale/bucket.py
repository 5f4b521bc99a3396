"""What a bucket of many small images costs before its first rows: `python -m tests.scale.bucket --images 100000`.

SeaweedFS on this machine is filled with small photographs in folders of a thousand. Printed are the seconds to list
them page by page and folder by folder, as the store answers and as one would that is farther away; the seconds of
`sess-ray list`; and those of `sess-ray explain` over the bucket and over the listed manifest: until it has planned,
until its first rows, after Ctrl-C, and until the same command has planned and written again.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import s3fs
from PIL import Image

from sess_ray.access import Access, open_filesystem, use
from sess_ray.io.listing import walk
from sess_ray.pipeline.cluster.settings import parse_options
from tests.cloud.servers import KEY, SECRET, Seaweed, seaweed

ROOT = Path(__file__).parents[2]
PHOTOS = "s3://images/photos"
IN_FOLDER = 1000
TOGETHER = 48  # uploads of a process at the same time
FAR = 0.1  # seconds that a page takes longer from a store farther away
ON = 10  # seconds after the first rows
SETTINGS = ("--model", "tests.fragile:model", "--targets", "top1", "--num-scales", "0", "--overlays", "0")


def photograph(number: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(80, 200, (2, 2, 3), np.uint8)
    Image.fromarray(pixels).resize((16, 16)).save(content, "JPEG")
    return content.getvalue()


def upload(endpoint: str, numbers: range) -> None:
    files = s3fs.S3FileSystem(endpoint_url=endpoint, key=KEY, secret=SECRET, use_listings_cache=False)
    place = f"images/photos/class-{numbers[0] // IN_FOLDER:04}"
    files.pipe({f"{place}/photograph-{one:08}.jpg": photograph(one) for one in numbers}, batch_size=TOGETHER)


def fill(server: Seaweed, count: int) -> None:
    begin = time.perf_counter()
    server.filesystem().mkdir("images")
    folders = [range(first, min(count, first + IN_FOLDER)) for first in range(0, count, IN_FOLDER)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        deque(pool.map(upload, [server.endpoint] * len(folders), folders), maxlen=0)
    print(f"{count} objects uploaded in {time.perf_counter() - begin:.0f} s", flush=True)


def by_page(filesystem: Any, path: str) -> Iterator[str]:
    """Yield the names in a bucket one page after the other."""
    bucket, _, prefix = path.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/"}
    while True:
        page = filesystem.call_s3("list_objects_v2", **asked)
        yield from (f"{bucket}/{entry['Key']}" for entry in page["Contents"])
        if not page["IsTruncated"]:
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def walks(server: Seaweed) -> None:
    use(Access(parse_options(server.options)))
    filesystem, path = open_filesystem(PHOTOS)
    call, found = filesystem.call_s3, []

    def slow(*names: str, **asked: Any) -> Any:
        time.sleep(FAR)
        return call(*names, **asked)

    for far, ask in (("", call), (f", {FAR * 1000:.0f} ms a page farther away", slow)):
        filesystem.call_s3 = ask
        for how, one in (("page by page", by_page), ("folder by folder", walk)):
            begin, used = time.perf_counter(), time.process_time()
            found.append(list(one(filesystem, path)))
            seconds, used = time.perf_counter() - begin, time.process_time() - used
            print(f"{len(found[-1])} names {how}{far}: {seconds:.1f} s, {used:.1f} s of CPU", flush=True)
    assert all(names == found[0] for names in found)
    filesystem.call_s3 = call


def command(server: Seaweed, job: str, *arguments: object) -> list[str]:
    options = [part for option in server.options for part in ("--storage-option", option)]
    return [sys.executable, *map(str, (ROOT / "jobs" / job, *arguments, *options))]


def explain(server: Seaweed, place: str, output: Path) -> None:
    """Run the command until some seconds after its first rows, and stop it by Ctrl-C; say how long each took."""
    before, begin = files_in(output), time.perf_counter()
    arguments = command(server, "explain_dataset.py", "--input", place, "--output", output, *SETTINGS)
    running = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    when: list[float] = []
    used: list[float] = []

    def read() -> None:
        for line in running.stdout or ():
            if line.startswith("explaining "):
                when.append(time.perf_counter() - begin)
                used.append(sum(psutil.Process(running.pid).cpu_times()[:2]))

    threading.Thread(target=read, daemon=True).start()
    while not files_in(output) - before and running.poll() is None:
        time.sleep(0.05)
    rows = time.perf_counter() - begin
    time.sleep(ON)
    stopped = time.perf_counter()
    running.send_signal(signal.SIGINT)
    code = running.wait()
    print(
        f"{place}, {len(before)} files there: planned after {when[0]:.1f} s ({used[0]:.1f} s of CPU),"
        f" new rows after {rows:.1f} s; Ctrl-C took {time.perf_counter() - stopped:.1f} s ({code})",
        flush=True,
    )


def files_in(output: Path) -> set[Path]:
    return set((output / "maps").glob("*.parquet"))


def measure(server: Seaweed, folder: Path) -> None:
    walks(server)
    manifest = folder / "manifest.parquet"
    arguments = command(server, "list_dataset.py", "--input", PHOTOS, "--output", manifest)
    begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(arguments, cwd=ROOT, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    print(f"sess-ray list: {time.perf_counter() - begin:.1f} s, {used:.1f} s of CPU", flush=True)
    for number, place in enumerate((PHOTOS, str(manifest))):
        for _ in range(2):
            explain(server, place, folder / f"out-{number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        store.mkdir()
        with seaweed(store) as server:
            fill(server, given.images)
            measure(server, Path(folder))


if __name__ == "__main__":
    main()
