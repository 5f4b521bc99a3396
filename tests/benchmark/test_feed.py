"""What a CPU does for a GPU, stage by stage; and that pixels are copied no more often than they have to be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from sess_ray.benchmark import feed, report
from sess_ray.benchmark.config import BenchmarkConfig, inputs
from sess_ray.pipeline.cluster.rows import cells, flat, tables
from sess_ray.pipeline.explain import stages
from sess_ray.pipeline.explain.stages import DECODED

TINY = "tests.faults.tiny:model"
STAGES = ["read", "decode", "pixels to Arrow", "Arrow to the store", "store to pinned memory"]


@pytest.mark.slow
def test_stages_are_all_there(monkeypatch):
    monkeypatch.setattr(feed, "REPEATS", 1)
    config = BenchmarkConfig(model=TINY, num_scales=1, images=2, feed=100)
    items, _ = inputs(config)
    rows = feed.measure_feed(config, items)
    assert [row["stage"] for row in rows] == [*STAGES, "map to the store", "map to PNG", "write", "all"]
    assert rows[-1]["ms"] == pytest.approx(sum(row["ms"] for row in rows[:-1]))
    assert all(row["cores"] == pytest.approx(row["ms"] / 10) for row in rows)
    assert rows[1]["ms"] > 0
    found = {"config": {"model": "tiny", "method": "gradcam"}, "machine": "2 CPU threads", "feed": rows}
    assert "| ms of a core an image | cores |" in report.tables(found)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)


def test_what_is_stored_comes_back(pixels):
    assert np.array_equal(feed._received(*feed._stored(feed._block(pixels))), pixels)


def test_arrow_takes_pixels_by_one_copy(pixels, monkeypatch):
    """Neither Python nor NumPy holds another one meanwhile."""
    monkeypatch.setattr(stages, "shrunk", lambda *_: (pixels, pixels.shape[:2]))
    monkeypatch.setattr(stages.metering, "add", lambda *_, **__: None)
    task = {**dict.fromkeys(DECODED.names), "image_id": "image", "uri": "image"}
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    [table] = tables([stages._decoded(task, b"file", 10**9, None)], DECODED)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < pixels.nbytes / 4
    assert pixels.nbytes <= pa.total_allocated_bytes() - before < 1.5 * pixels.nbytes
    [again] = cells(table["pixels"])
    assert np.array_equal(again.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("part", [slice(None), slice(1, 4), slice(3, 3)])
def test_cells_are_seen_where_they_lie(part):
    chunks = [b"abc", None], [b"", b"\xff"], [], [None]
    column = pa.chunked_array([pa.array(values, pa.large_binary()) for values in chunks])
    column = column.slice(part.start or 0, len(range(5)[part]))
    found = cells(column)
    assert [one if one is None else one.tobytes() for one in found] == column.to_pylist()
    for one, chunk in zip(found[:1], column.chunks, strict=False):
        assert one is None or np.shares_memory(one, np.frombuffer(chunk.buffers()[2], np.uint8))


def test_a_cell_is_the_array_itself_where_it_lies_in_order(pixels):
    assert np.shares_memory(np.frombuffer(flat(pixels), np.uint8), pixels)
    assert bytes(flat(pixels[:, ::-1])) == pixels[:, ::-1].tobytes()


def test_blocks_of_cells_are_as_large_as_their_pixels(pixels):
    rows = [{**dict.fromkeys(DECODED.names), "pixels": flat(pixels)} for _ in range(4)]
    assert [table.num_rows for table in tables(rows, DECODED)] == [3, 1]  # of 4 MiB
