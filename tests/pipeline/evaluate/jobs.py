"""The evaluation job, as tests run it, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation

TABBY, ESPRESSO, MISSILE = 281, 967, 657
SIDE = 128  # pixels of a patch: fewer steps of insertion than of the 224 that the model has learned
BOXES = {
    "cat.png": [TABBY, [40, 20, 250, 230]],
    "cup.png": [ESPRESSO, [100.5, 40, 290, 210]],
    "rocket.png": [MISSILE, [140, 30, 180, 200]],
    "far.png": [TABBY, [400, 400, 500, 500]],
    "other size.png": [TABBY, [0, 0, 50, 50]],
}
MEASURED = {"gone.png": [0, 0, 200, 200], **{name: BOXES[name][1] for name in ("cat.png", "cup.png", "rocket.png")}}


def evaluated(runs, output, **settings):
    named = tuple(f"{name}={url}" for name, url in runs.items())
    config = EvaluateConfig(run=named, output=str(output), **{"actors": "1", **settings})
    evaluation = prepare_evaluation(config)
    return evaluation, evaluate.run(evaluation)


def table(output, folder):
    return [row for path in sorted(Path(output, folder).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
