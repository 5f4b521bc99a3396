"""Our graph on many logical GPUs: real blocks, real reading and writing; only the actor sleeps instead of explaining.

python -m tests.scale.standin --processes 8 --calls 8 --milliseconds 50 --images 32768

A process has several GPUs by calls that run at the same time, since this many processes do not fit a small machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from sess_ray.pipeline.cluster.rows import tables
from sess_ray.pipeline.explain import blocks
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import stream
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.stages import EXPLAINED, TASKS

FILES = 64
SETTLED = 0.8  # of a run: when workers end, they take with them what they have used
TASK_CPUS = 4  # logical, for tasks of half a CPU each
MODEL = "tests.fragile:model"


def stand_in(seconds: float, folder: str) -> type:
    """Return an actor that takes so long for an image, and notes when it was at work."""

    class StandIn:
        def __init__(self, *_):
            pass

        def __call__(self, table):
            yield from tables(self.explained(table), EXPLAINED)

        def explained(self, table):
            begin, busy = time.time(), 0.0
            for row in table.drop_columns(["pixels"]).to_pylist():
                time.sleep(seconds)
                busy += seconds
                yield of_image(row, seconds)
            note = {"lane": f"{os.getpid()} {threading.get_ident()}", "begin": begin, "end": time.time(), "busy": busy}
            with open(f"{folder}/{os.getpid()}", "a") as file:
                file.write(json.dumps(note) + "\n")

    def of_image(row, seconds):
        of_map = {
            "target": 1,
            "target_name": "one",
            "score": 0.5,
            "peak_x": 0,
            "peak_y": 0,
            "num_scored": 1,
            "num_kept": 1,
        }
        levels = bytes(row["height"] * row["width"])
        image = {name: row.get(name) for name in EXPLAINED.names if name not in ("maps", "seconds")}
        image |= {"predicted": 1, "predicted_score": 0.5, "num_patches": 1, "num_forwards": 1}
        return {**image, "seconds": seconds, "maps": [{**of_map, "levels": levels}]}

    return StandIn


@dataclass(frozen=True)
class Load:
    """What to run."""

    processes: int
    calls: int
    seconds: float
    images: int
    gpus_per_process: float = 0
    side: int = 32  # pixels of an image: it shall cost little to read

    @property
    def lanes(self) -> int:
        return self.processes * self.calls


@dataclass(frozen=True)
class Found:
    """What a run has shown."""

    blocks: int
    rows: int
    busy: float
    held: float
    first_seconds: float
    seconds: float
    driver_seconds: float
    others: dict[str, float]  # seconds of CPU for an image
    memory: list[float]

    def line(self) -> str:
        others = ", ".join(f"{name} {1000 * spent:.2f}" for name, spent in sorted(self.others.items()))
        memory = " ".join(f"{found:.0f}" for found in self.memory)
        driver = 1000 * self.driver_seconds / self.blocks
        return "\n".join(
            [
                f"busy {self.busy:.3f}, with a block {self.held:.3f}; first rows after {self.first_seconds:.1f} s",
                (
                    f"{self.blocks} blocks, {self.rows} images in {self.seconds:.1f} s:"
                    f" {self.blocks / self.seconds:.1f} blocks/s, {self.rows / self.seconds:.0f} images/s"
                ),
                f"ms of CPU: the driver {driver:.2f} a block; an image in {others}",
                f"MiB of the driver, at tenths of the run: {memory}",
            ]
        )


def measure(load: Load, folder: Path) -> Found:
    """Run the graph; Ray is connected."""
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().wait_for_min_actors_s = 900  # all of them: to start so many takes minutes of two cores
    job = _job(load, folder)
    notes = folder / "notes"
    notes.mkdir()
    compute = ActorPoolStrategy(
        size=load.processes,
        max_concurrent_calls_per_actor=load.calls if load.calls > 1 else None,
        enable_true_multi_threading=load.calls > 1,
    )
    me, memory, begin = psutil.Process(), [], time.perf_counter()
    first, rows, blocks = 0.0, 0, 0
    spent, used = 0.0, []
    for counts in stream(job, stand_in(load.seconds, str(notes)), compute, load.calls):
        if not blocks:
            first, spent = time.perf_counter() - begin, _cpu(me)
        rows, blocks = rows + counts["images"], blocks + 1
        if rows >= len(used) * load.images / 10 and rows <= SETTLED * load.images:
            used.append((rows, _workers(me)))
        memory.append(me.memory_info().rss / 2**20)
    busy, held = busy_share([json.loads(line) for file in notes.iterdir() for line in file.open()], load.lanes)
    (start, early), (last, late) = used[0], used[-1]
    return Found(
        blocks=blocks,
        rows=rows,
        busy=busy,
        held=held,
        first_seconds=first,
        seconds=time.perf_counter() - begin - first,
        driver_seconds=_cpu(me) - spent,
        others={name: (late[name] - early.get(name, 0)) / (last - start) for name in late},
        memory=[memory[int(share * (blocks - 1))] for share in np.linspace(0, 1, 11)],
    )


def _job(load: Load, folder: Path):
    rng = np.random.default_rng(0)
    for number in range(FILES):
        Image.fromarray(rng.integers(0, 256, (load.side, load.side, 3), np.uint8)).save(folder / f"{number}.jpg")
    settings = {"model": MODEL, "targets": "top1", "overlays": 0, "actors": str(load.processes)}
    config = ExplainConfig(
        input=str(folder), output=str(folder / "out"), gpus_per_actor=load.gpus_per_process, **settings
    )
    columns = {
        "image_id": [f"{number:08}.jpg" for number in range(load.images)],
        "uri": [f"{folder}/{number % FILES}.jpg" for number in range(load.images)],
        "top": ["top1"] * load.images,
    }
    tasks = pa.table([columns.get(name, [None] * load.images) for name in TASKS.names], schema=TASKS)
    return replace(prepare(config), tasks=tasks)


def busy_share(notes: list[dict], lanes: int) -> tuple[float, float]:
    """Return the share of the time that lanes slept for images, and that they had a block, while there were enough.

    Between the moment when the last lane had begun its first block, and the one when the first lane was done with its
    last: what was not taken yet, then lay ready elsewhere.
    """
    spans = defaultdict(list)
    for note in notes:
        spans[note["lane"]].append(note)
    start = max(min(note["begin"] for note in own) for own in spans.values())
    end = min(max(note["end"] for note in own) for own in spans.values())
    busy = held = 0.0
    for note in notes:
        overlap = max(0.0, min(note["end"], end) - max(note["begin"], start))
        held += overlap
        busy += note["busy"] * overlap / (note["end"] - note["begin"])
    return busy / (lanes * (end - start)), held / (lanes * (end - start))


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def _workers(me: psutil.Process) -> dict[str, float]:
    """Return the CPU seconds so far of what Ray has started, by kind."""
    found: dict[str, float] = defaultdict(float)
    for process in me.children(recursive=True):
        try:
            title, spent = " ".join(process.cmdline()), _cpu(process)
        except psutil.Error:
            continue
        if "MapWorker" in title:
            found["actors"] += spent
        elif title.startswith("ray::") and "Agent" not in title:
            found["tasks"] += spent
        else:
            found["ray"] += spent
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--calls", type=int, default=8, help="at the same time in a process; each has a GPU")
    parser.add_argument("--milliseconds", type=float, default=50)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--blocks-per-actor", type=int, default=blocks.BLOCKS_PER_ACTOR, help="fewer: a shorter run")
    parser.add_argument("--side", type=int, default=Load.side, help="pixels of an image")
    given = parser.parse_args()
    blocks.BLOCKS_PER_ACTOR = given.blocks_per_actor
    load = Load(given.processes, given.calls, given.milliseconds / 1000, given.images, given.calls, given.side)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    from sess_ray.pipeline.cluster.session import connect

    cpus = load.processes + TASK_CPUS
    ray.init("local", num_cpus=cpus, num_gpus=load.lanes, include_dashboard=False, log_to_driver=False)
    connect(None)
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{load.lanes} logical GPUs in {load.processes} processes, {given.milliseconds:g} ms an image", flush=True
        )
        print(measure(load, Path(folder)).line())
    ray.shutdown()


if __name__ == "__main__":
    main()
