"""Measure the engine and the whole job against their floor.

The floor is the scoring forward alone: the same windows, batch size and precision, preloaded, in a plain torch loop
that runs the model as it was loaded. Floor and engine take turns image by image, so that a busy machine slows both.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from sess_ray.benchmark import report
from sess_ray.benchmark.config import BenchmarkConfig, inputs
from sess_ray.benchmark.core import measure_core, measure_stages
from sess_ray.benchmark.feed import measure_feed
from sess_ray.benchmark.passes import measure_methods
from sess_ray.benchmark.whole import measure_job
from sess_ray.cli import command

app = command.command("sess-ray benchmark", __doc__)


@app.default
def benchmark(
    config: Annotated[BenchmarkConfig, Parameter(name="*")] = BenchmarkConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Measure, print and store."""
    del config_file  # read by command.run, before the flags are
    if config.compare:
        print(report.compare(*config.compare))
        return 0
    items, images = inputs(config)
    result: dict[str, Any] = {"config": dataclasses.asdict(config), "machine": _machine()}
    if config.feed:
        result["feed"] = measure_feed(config, items)
    elif config.methods:
        result["methods"] = measure_methods(config, images)
    else:
        result["core"] = measure_core(config, images)
        result["stages"] = measure_stages(config, items, images)
        if config.job_images:
            workers = torch.cuda.device_count() or torch.get_num_threads()
            result["jobs"] = [measure_job(config, items, images, count) for count in sorted({1, workers})]
    print(report.tables(result))
    if config.json:
        report.store(result, config.json)
    return 0


def _machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} CPU threads"
