"""The whole job against its floor: Ray, decoding and Parquet included."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from sess_ray.benchmark.config import BenchmarkConfig, batches, engine, forward, timed
from sess_ray.io.items import ITEMS, Item
from sess_ray.pipeline.explain.config import ExplainConfig

ACTOR = "ExplainActor"


def measure_job(config: BenchmarkConfig, items: list[Item], images: list[np.ndarray], actors: int) -> dict[str, Any]:
    """Return what the job takes after start-up with some workers, beside the floor on as many cores or GPUs.

    The floor is measured before and after the job. On a CPU it has as many threads as there are workers, each of which
    has one; of several GPUs it is the share of one. A worker may have begun its second block before the first rows, so
    that the busy share is a little above 1.
    """
    from sess_ray.pipeline.cluster.session import connect
    from sess_ray.pipeline.explain.job import stream
    from sess_ray.pipeline.explain.prepare import prepare
    from sess_ray.pipeline.explain.targets import resolve

    sess = engine(config)
    on_cpu = sess.device.type == "cpu"
    loaded = [batch for pixels in images[:3] for batch in batches(sess, pixels)]
    count = sum(len(batch) for batch in loaded)
    threads = torch.get_num_threads()

    def floor() -> list[float]:
        if on_cpu:
            torch.set_num_threads(min(actors, threads))
        forward(sess.model.module, loaded)
        found = [timed(forward, sess.model.module, loaded) / count / (1 if on_cpu else actors) for _ in range(3)]
        torch.set_num_threads(threads)
        return found

    with tempfile.TemporaryDirectory() as output:
        settings = ExplainConfig(
            input=config.input,
            output=output,
            model=config.model,
            weights=config.weights,
            method=config.method,
            num_scales=config.num_scales,
            max_map_side=config.max_map_side,
            pre_filter_ratio=config.pre_filter_ratio,
            precision=config.precision[0],
            batch_size=config.batch_size[0] if config.batch_size else None,
            actors=str(actors),
        )
        job = prepare(settings)
        repeated = [
            {**vars(item), "image_id": f"{number}/{item.image_id}"}
            for number, item in enumerate(islice(cycle(items), config.job_images))
        ]
        job = dataclasses.replace(job, tasks=resolve(pa.Table.from_pylist(repeated, ITEMS), "top1", job.model))
        connect(None)
        floors = floor()
        begin, first, total = time.perf_counter(), 0.0, dict.fromkeys(("images", "windows", "actor_seconds"), 0.0)
        peak = 0.0
        for counts in stream(job):
            if first:
                for name in total:
                    total[name] += counts[name]
            first = first or time.perf_counter()
            peak = max(peak, actor_peak())
        seconds = time.perf_counter() - first
        floors += floor()
    per_window = seconds / total["windows"]
    return {
        "actors": actors,
        "images": config.job_images,
        "seconds_to_first_rows": first - begin,
        "images_per_second": total["images"] / seconds,
        "windows_per_second": total["windows"] / seconds,
        "ms_per_window": 1000 * per_window,
        "floor_ms_per_window": 1000 * float(np.mean(floors)),
        "ratio": per_window / float(np.mean(floors)),
        "busy_share": total["actor_seconds"] / seconds / actors,
        "actor_peak_mib": peak / 2**20,
    }


def actor_peak() -> float:
    """Return the most bytes that a worker of a Ray on this machine has held; 0 where the system does not tell."""
    peak = 0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if not any(ACTOR in word for word in process.cmdline()):
                continue
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (psutil.Error, OSError):
            continue
        peak = max([peak, *(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
    return peak
