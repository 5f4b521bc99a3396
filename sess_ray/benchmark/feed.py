"""What the CPU has to do for an image beside the device: how many cores a GPU keeps busy."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sess_ray.benchmark.config import BenchmarkConfig, decoded, engine
from sess_ray.io.items import Item
from sess_ray.io.maps import quantize
from sess_ray.io.reading import read_items
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.cluster.rows import cells, flat, tables
from sess_ray.pipeline.explain.stages import DECODED, EXPLAINED, map_rows

REPEATS = 5


def measure_feed(config: BenchmarkConfig, items: list[Item]) -> list[dict[str, Any]]:
    """Return a row for each stage: milliseconds of a core an image, and the cores at so many images a second.

    It is the processor's time, which other processes on the machine do not add to, of the best of some rounds over all
    images. What Ray itself does is not in it, but for its copy of pixels to the store: pickled with buffers apart, and
    these copied. A GPU's host copies them once more, into pinned memory.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = _taken(config, [item.uri for item in items][: config.images])
    finally:
        torch.set_num_threads(threads)
    taken["all"] = sum(taken.values())
    return [{"stage": name, "ms": ms, "cores": ms * config.feed / 1000} for name, ms in taken.items()]


def _taken(config: BenchmarkConfig, uris: list[str]) -> dict[str, float]:
    contents = [content for content in read_items(uris) if isinstance(content, bytes)]
    images = [decoded(config, content) for content in contents]
    blocks = [_block(pixels) for pixels in images]
    stored = [_stored(block) for block in blocks]
    sess = engine(config)
    maps = [found.saliency for [found] in sess.explain(images)]
    explained = [_explained(saliency) for saliency in maps]
    stored_maps = [_stored(pa.Table.from_pylist([row], EXPLAINED)) for row in explained]
    rows = [row for image in explained for row in map_rows(image, config.method, config.model)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        stages: dict[str, Callable[[], object]] = {
            "read": lambda: read_items(uris),
            "decode": lambda: [decoded(config, content) for content in contents],
            "pixels to Arrow": lambda: [_block(pixels) for pixels in images],
            "Arrow to the store": lambda: [_stored(block) for block in blocks],
            "store to pinned memory": lambda: [_received(*given) for given in stored],
            "map to the store": lambda: [
                _stored(pa.Table.from_pylist([_explained(saliency)], EXPLAINED)) for saliency in maps
            ],
            "map to PNG": lambda: [
                map_rows(pickle.loads(data, buffers=buffers).to_pylist()[0], config.method, config.model)  # noqa: S301
                for data, buffers in stored_maps
            ],
            "write": lambda: store.replace_table("maps", "image", pa.Table.from_pylist(rows, MAPS)),
        }
        return {name: _milliseconds(stage) / len(images) for name, stage in stages.items()}


def _milliseconds(function: Callable[[], object]) -> float:
    found = []
    for _ in range(REPEATS):
        begin = time.process_time()
        function()
        found.append(time.process_time() - begin)
    return 1000 * min(found)


def _block(pixels: np.ndarray) -> pa.Table:
    rows, columns, _ = pixels.shape
    row = {"image_id": "image", "uri": "image", "rows": rows, "columns": columns, "pixels": flat(pixels)}
    [table] = tables([{**dict.fromkeys(DECODED.names), **row}], DECODED)
    return table


def _stored(table: pa.Table) -> tuple[bytes, list[bytearray]]:
    """Return a table as an object store holds it."""
    apart: list[pickle.PickleBuffer] = []
    data = pickle.dumps(table, protocol=5, buffer_callback=apart.append)
    return data, [bytearray(one.raw()) for one in apart]


def _received(data: bytes, buffers: list[bytearray]) -> np.ndarray:
    """Return a copy of the pixels, as an actor makes the only one for its device."""
    table = pickle.loads(data, buffers=buffers)  # noqa: S301 - our own
    [row] = table.drop_columns(["pixels"]).to_pylist()
    [pixels] = cells(table["pixels"])
    assert pixels is not None
    return pixels.reshape(row["rows"], row["columns"], 3).copy()


def _explained(saliency: np.ndarray) -> dict[str, Any]:
    rows, columns = saliency.shape
    found = {"target": 0, "target_name": "class", "levels": quantize(saliency).tobytes()}
    return {"image_id": "image", "uri": "image", "rows": rows, "columns": columns, "maps": [found]}
