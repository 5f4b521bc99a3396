"""The engine against its floor, and where its time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sess_ray.benchmark.config import BenchmarkConfig, batches, decoded, engine, forward, timed
from sess_ray.benchmark.rate import flops_of_product, flops_of_window, matrix, multiply
from sess_ray.engine.fusion import fuse
from sess_ray.engine.sess import SESS
from sess_ray.io.items import Item
from sess_ray.io.maps import encode_map, quantize
from sess_ray.io.reading import read_items
from sess_ray.io.store import MAPS, Store

TOGETHER = 8  # images: where windows are guided, those of one image do not fill batches
FLOOR, FORWARD, WITHOUT = "floor", "forward as the engine runs it", "without SESS"


def measure_core(config: BenchmarkConfig, images: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return a row for each precision, batch size and setting of the engine: its time, and that over the floor's.

    And its share of the rate, in floating-point operations a second, at which a large matrix is multiplied. All take
    turns, a few images at a time, so that a busy machine slows all; the floor runs before and after the others. A ratio
    is one of sums.
    """
    rows = []
    setups = [
        _Setup(config, precision, batch_size)
        for precision in config.precision
        for batch_size in config.batch_size or (None,)
    ]
    turns = [images[first : first + TOGETHER] for first in range(0, len(images), TOGETHER)]
    for turn, some in enumerate([images[:1], *turns]):
        for setup in setups:
            setup.measure(some, warm_up=not turn)
    for setup in setups:
        rows += setup.rows()
    return rows


class _Setup:
    """Floor and engines of one precision and batch size, and the seconds that each has taken for each image."""

    def __init__(self, config: BenchmarkConfig, precision: str, batch_size: int | None) -> None:
        shared = {"precision": precision, "batch_size": batch_size}
        self.sess = engine(config, **shared)
        self.precision = precision
        self.images = 0
        self.matrix = matrix(self.sess.device, self.sess.dtype)
        self.multiplying: list[float] = []
        self.runs: dict[str, Callable[[list[np.ndarray]], int]] = {
            f"r = {ratio:g}": partial(_explain, engine(config, **shared, pre_filter_ratio=ratio), "top1")
            for ratio in config.ratios
        }
        label = f"r = {self.sess.pre_filter_ratio:g}, guided windows"
        self.runs[label] = partial(_explain, engine(config, **shared, windows="guided"), "top1")
        if config.targets > 1:
            label = f"r = {self.sess.pre_filter_ratio:g}, {config.targets} targets"
            self.runs[label] = partial(_explain, self.sess, f"top{config.targets}")
        self.runs[WITHOUT] = partial(_explain, engine(config, **shared, num_scales=None), "top1")
        self.seconds: dict[str, list[float]] = {name: [] for name in (FLOOR, FORWARD, *self.runs)}
        self.counts = dict.fromkeys(self.seconds, 0)

    def measure(self, images: list[np.ndarray], *, warm_up: bool) -> None:
        loaded = [batch for pixels in images for batch in batches(self.sess, pixels)]
        model = self.sess.model
        if warm_up:
            forward(model.module, loaded)
        runs: dict[str, Callable[[], int]] = {
            FLOOR: partial(forward, model.module, loaded),
            FORWARD: partial(forward, model.scorer, loaded),
            **{name: partial(run, images) for name, run in self.runs.items()},
        }
        windows: list[int] = []
        seconds = [timed(lambda run=run: windows.append(run())) for run in runs.values()]
        multiplying = timed(multiply, self.matrix)
        seconds[0] = (seconds[0] + timed(runs[FLOOR])) / 2
        if warm_up:
            return
        self.images += len(images)
        self.multiplying.append(multiplying)
        for name, taken, count in zip(runs, seconds, windows, strict=True):
            self.seconds[name].append(taken)
            self.counts[name] += count

    def rows(self) -> list[dict[str, Any]]:
        floor, images, counts = self.seconds[FLOOR], self.images, self.counts
        matrix_rate = flops_of_product(self.matrix) * len(self.multiplying) / sum(self.multiplying)
        most = matrix_rate / flops_of_window(self.sess.model)  # windows a second
        return [
            {
                "precision": self.precision,
                "batch_size": self.sess.batch_size,
                "engine": name,
                "images": images,
                "windows": counts[name],
                "ms_per_window": 1000 * sum(seconds) / counts[name],
                "images_per_second": images / sum(seconds),
                "windows_per_second": counts[name] / sum(seconds),
                "matrix_share": counts[name] / sum(seconds) / most,
                "ratio": sum(seconds) / sum(floor),
                "ratio_of_medians": float(np.median(seconds) / np.median(floor)),
            }
            for name, seconds in self.seconds.items()
        ]


def _explain(sess: SESS, targets: str, images: list[np.ndarray]) -> int:
    return sum(explanations[0].num_forwards for explanations in sess.explain(images, targets))


def measure_stages(config: BenchmarkConfig, items: list[Item], images: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return a row for each stage of the job: milliseconds an image, one stage after the other.

    What the engine does beside cutting, scoring and fusing is called extracting.
    """
    sess = engine(config, keep_maps=True)
    uris = [item.uri for item in items][: len(images)]
    contents = [content for content in read_items(uris) if isinstance(content, bytes)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        _, *found = (_stages(sess, pixels, store) for pixels in [images[0], *images])  # the first warms up
    taken = {
        "read": timed(read_items, uris) / len(uris),
        "decode": timed(lambda: [decoded(config, content) for content in contents]) / len(contents),
        **{name: float(np.mean([seconds[name] for seconds in found])) for name in found[0]},
    }
    return [{"stage": name, "ms": 1000 * value, "share": value / sum(taken.values())} for name, value in taken.items()]


def _stages(sess: SESS, pixels: np.ndarray, store: Store) -> dict[str, float]:
    """Return the seconds of each stage of an image behind decoding."""
    [[explanation]] = sess.explain([pixels])
    loaded = batches(sess, pixels)
    patches = explanation.patches
    fusing = [
        torch.from_numpy(np.ascontiguousarray(values)).to(sess.device)
        for values in (explanation.patch_maps, patches["score"], patches["kept"])
    ]
    png = encode_map(quantize(explanation.saliency))
    row = pa.Table.from_pylist([{"image_id": "image", "saliency": {"bytes": png, "path": None}}], MAPS)
    whole = timed(sess.explain, [pixels])
    cutting = timed(batches, sess, pixels)
    scoring = timed(forward, sess.model.scorer, loaded)
    fusion = timed(lambda: fuse(explanation.plan, *fusing).cpu())
    return {
        "cut": cutting,
        "score": scoring,
        "extract": max(0.0, whole - cutting - scoring - fusion),
        "fuse": fusion,
        "encode": timed(lambda: encode_map(quantize(explanation.saliency))),
        "write": timed(store.replace_table, "maps", "image", row),
    }
