"""The explain job, as tests run it, and what it leaves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare


def explain(**settings):
    config = ExplainConfig(**{"num_scales": 2, "actors": "1", **settings})  # each actor imports torch for seconds
    return run(prepare(config))


def quickly(**settings):
    """Explain by a model of a few weights, at one scale."""
    return explain(**{"model": "tests.fragile:model", "num_scales": 1, "overlays": 0} | settings)


def rows(output, folder="maps"):
    paths = sorted(Path(output, folder).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def picture(number, size=(40, 30)):
    """Return a PNG of noise."""
    pixels = np.random.default_rng(number).integers(0, 200, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
