"""The engine against its floor, and where its time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sess_ray.benchmark.config import BenchmarkConfig, batches, engine, forward, timed
from sess_ray.explainer import SESS
from sess_ray.fusion import fuse
from sess_ray.io.decode import decode
from sess_ray.io.inputs import Item
from sess_ray.io.reading import read_items
from sess_ray.io.store import MAPS, Store, encode_map, quantize

FLOOR, FORWARD, WITHOUT = "floor", "forward as the engine runs it", "without SESS"


def measure_core(config: BenchmarkConfig, images: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return a row for each precision, batch size and setting of the engine: its time, and that over the floor's.

    All take turns image by image, so that a busy machine slows all; the floor runs before and after the others. A
    ratio is one of sums.
    """
    rows = []
    setups = [
        _Setup(config, precision, batch_size)
        for precision in config.precision
        for batch_size in config.batch_size or (None,)
    ]
    for turn, pixels in enumerate([images[0], *images]):
        for setup in setups:
            setup.measure(pixels, warm_up=not turn)
    for setup in setups:
        rows += setup.rows()
    return rows


class _Setup:
    """Floor and engines of one precision and batch size, and the seconds that each has taken for each image."""

    def __init__(self, config: BenchmarkConfig, precision: str, batch_size: int | None) -> None:
        shared = {"precision": precision, "batch_size": batch_size}
        self.sess = engine(config, **shared)
        self.precision = precision
        self.windows: list[int] = []
        self.runs: dict[str, Callable[[np.ndarray], object]] = {
            f"r = {ratio:g}": partial(_explain, engine(config, **shared, pre_filter_ratio=ratio), "top1")
            for ratio in config.ratios
        }
        if config.targets > 1:
            label = f"r = {config.ratios[-1]:g}, {config.targets} targets"
            self.runs[label] = partial(_explain, self.sess, f"top{config.targets}")
        self.runs[WITHOUT] = partial(_explain, engine(config, **shared, num_scales=None), "top1")
        self.seconds: dict[str, list[float]] = {name: [] for name in (FLOOR, FORWARD, *self.runs)}

    def measure(self, pixels: np.ndarray, *, warm_up: bool) -> None:
        loaded = batches(self.sess, pixels)
        model = self.sess.model
        if warm_up:
            forward(model.module, loaded)
        found = {FLOOR: timed(forward, model.module, loaded), FORWARD: timed(forward, model.scorer, loaded)}
        found |= {name: timed(run, pixels) for name, run in self.runs.items()}
        found[FLOOR] = (found[FLOOR] + timed(forward, model.module, loaded)) / 2
        if warm_up:
            return
        self.windows.append(sum(len(batch) for batch in loaded))
        for name, seconds in found.items():
            self.seconds[name].append(seconds)

    def rows(self) -> list[dict[str, Any]]:
        floor, images = self.seconds[FLOOR], len(self.windows)
        counts = {name: images if name == WITHOUT else sum(self.windows) for name in self.seconds}
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
                "ratio": sum(seconds) / sum(floor),
                "ratio_of_medians": float(np.median(seconds) / np.median(floor)),
            }
            for name, seconds in self.seconds.items()
        ]


def _explain(sess: SESS, targets: str, pixels: np.ndarray) -> None:
    sess.explain([pixels], targets)


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
        "decode": timed(lambda: [decode(content) for content in contents]) / len(contents),
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
