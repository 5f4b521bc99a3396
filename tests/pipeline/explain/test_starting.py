"""Actors that start, fail to start, and work within their memory."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from sess_ray import load_model
from sess_ray.access import Access
from sess_ray.pipeline.cluster.session import pool
from sess_ray.pipeline.explain.actor import ExplainActor
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import stream
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.stages import TASKS, read_and_decode
from tests import nets
from tests.fragile import Fragile
from tests.pipeline.explain.jobs import explain, rows

pytestmark = pytest.mark.usefixtures("ray_session")


def test_one_image_that_fails_in_the_model_costs_only_itself(ray_session, good):
    paths = sorted(str(path) for path in good.rglob("*.jpg"))
    tasks = [{"image_id": str(i), "uri": path, "targets": [[1]]} for i, path in enumerate(paths)]
    block = pa.concat_tables(read_and_decode(pa.Table.from_pylist(tasks, TASKS), Access(), 10**8))
    actor = ExplainActor(ray_session.put(load_model("tests.fragile:model")), {"num_scales": 1, "device": "cpu"})
    found = pa.concat_tables(actor(block)).to_pylist()
    assert {row["image_id"]: row["error"] for row in found} == {
        "0": None,
        "1": "RuntimeError: this image is too much",
        "2": None,
    }
    assert [row["stage"] for row in found if row["error"]] == ["explain"]


def test_little_more_than_an_image_and_its_maps_moves_between_processes(ray_session, good):
    """Counted in bytes of the object store; windows would be a hundred times as many."""
    uris = sorted(map(str, good.rglob("*.jpg")))
    tasks = pa.Table.from_pylist([{"image_id": uri, "uri": uri, "targets": [[1], [0]]} for uri in uris], TASKS)
    decoded = pa.concat_tables(read_and_decode(tasks, Access(), 10**8))
    pixels = 3 * 240 * 320
    assert len(uris) * pixels < decoded.nbytes < len(uris) * (pixels + 2048)
    actor = ExplainActor(ray_session.put(load_model(nets.Small(), input_size=64)), {"num_scales": 12})
    explained = pa.concat_tables(actor(decoded))
    assert explained["error"].null_count == len(uris)
    assert sum(explained["num_patches"].to_pylist()) > 500
    assert len(uris) * 2 * 240 * 320 < explained.nbytes < len(uris) * (2 * 240 * 320 + 2048)


@pytest.mark.parametrize("fits", [5, 2, 1, 0])
def test_where_memory_ends_batches_get_smaller_and_the_rest_is_explained(ray_session, good, monkeypatch, fits):
    """A device that holds `fits` windows: the maps are those of any other batch, or the image alone has the error."""
    path = str(next(good.rglob("coffee.jpg")))
    tasks = pa.Table.from_pylist([{"image_id": "0", "uri": path, "targets": [[1]]}], TASKS)
    block = pa.concat_tables(read_and_decode(tasks, Access(), 10**8))
    options = {"num_scales": 3, "device": "cpu", "batch_size": 4, "pre_filter_ratio": 0.5}
    actor = ExplainActor(ray_session.put(load_model("tests.fragile:model")), options)
    [expected] = pa.concat_tables(actor(block)).to_pylist()
    whole = Fragile.forward

    def forward(module, x):
        if len(x) > fits:
            raise torch.OutOfMemoryError("no memory for so many")
        return whole(module, x)

    monkeypatch.setattr(Fragile, "forward", forward)
    [found] = pa.concat_tables(actor(block)).to_pylist()
    if not fits:
        assert (found["stage"], found["error"]) == ("explain", "OutOfMemoryError: no memory for so many")
        return
    [given], [wanted] = found["maps"], expected["maps"]
    levels = [np.frombuffer(row["levels"], np.uint8).astype(int) for row in (given, wanted)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert given["num_kept"] == wanted["num_kept"]


def test_an_actor_that_can_not_start_is_tried_again(good, tmp_path, monkeypatch):
    monkeypatch.setenv("SESS_RAY_TEST_FLAG", str(tmp_path / "flag"))
    output = tmp_path / "out"
    summary = explain(input=str(good), output=str(output), model="tests.fragile:slow_to_start", actors="1", overlays=0)
    assert (tmp_path / "flag").exists()
    assert (summary.images, summary.errors) == (2, 1)  # the rocket, which this model never explains


def test_what_is_written_is_told_before_the_next_is(good, tmp_path):
    method = {"method": "tests.fragile:signed", "method_option": (f"folder={tmp_path}",), "pre_filter_ratio": 0.0}
    settings = {"input": str(good), "output": str(tmp_path / "out"), "model": "tests.faults.tiny:model"}
    told = 0
    for counts in stream(prepare(ExplainConfig(**settings, **method, num_scales=2, actors="1", overlays=0))):
        told += counts["maps"]
        assert len(rows(tmp_path / "out")) == told
    assert told == 3


def test_one_actor_starts_when_the_others_are_at_work(good, tmp_path):
    """On CPUs, where all that start at the same time wait for one another; with GPUs all start at once."""
    signatures = tmp_path / "signatures"
    signatures.mkdir()
    image = {"uri": str(good / "tabby/chelsea.jpg"), "target": 1}
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({**image, "id": str(i)}) for i in range(500)))
    method = {"method": "tests.fragile:signed", "method_option": (f"folder={signatures}",)}
    settings = {"input": str(tmp_path / "m.jsonl"), "output": str(tmp_path / "out"), "model": "tests.fragile:model"}
    job = prepare(ExplainConfig(**settings, **method, num_scales=1, actors="2", overlays=0))
    for signature in signatures.iterdir():  # of the trial
        signature.unlink()
    counts = stream(job)
    next(counts)
    assert len(list(signatures.iterdir())) == 1
    assert any(len(list(signatures.iterdir())) == 2 for _ in counts)
    counts.close()


@pytest.mark.parametrize(
    ("gpus", "address", "first"), [(0.0, None, 3), (1.0, None, 4), (0.0, "auto", 4), (1.0, "auto", 4)]
)
def test_actors_that_do_not_share_cores_start_together(monkeypatch, gpus, address, first):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 6, "GPU": 4 * gpus})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    compute = pool(None, None, 100, address)["compute"]
    assert (compute.min_size, compute.max_size) == (first, 4)
