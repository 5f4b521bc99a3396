"""The actors of both jobs, in this process and without Ray: on a device they give what they give on a CPU."""

from __future__ import annotations

import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch

from sess_ray.io.annotations import Annotation, Annotations, Object
from sess_ray.io.maps import encode_map, quantize
from sess_ray.metrics.suite import SUITE
from sess_ray.models.model import Model
from sess_ray.pipeline.cluster import isolation
from sess_ray.pipeline.evaluate.judging import READ, EvaluateActor
from sess_ray.pipeline.explain import metering
from sess_ray.pipeline.explain.actor import ExplainActor
from sess_ray.pipeline.explain.stages import DECODED

pytestmark = pytest.mark.device
SIZES = ((60, 80), (90, 61), (64, 64))
OPTIONS = {"num_scales": 3, "pre_filter_ratio": 0.5}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Ray's store is this process, nobody counts seconds, and no worker has died."""
    monkeypatch.setattr("ray.get", lambda value: value)
    monkeypatch.setattr(metering, "add", lambda *_, **__: None)
    monkeypatch.setattr(isolation, "deadly", lambda: False)


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.fixture
def images(pictures):
    """A block of decoded images; the last one's target is no class."""
    empty = dict.fromkeys(DECODED.names)
    rows = [
        {
            **empty,
            "image_id": str(number),
            "uri": f"{number}.jpg",
            "targets": targets,
            **dict(zip(("height", "width"), pixels.shape, strict=False)),
            **dict(zip(("rows", "columns"), pixels.shape, strict=False)),
            "pixels": pixels.tobytes(),
        }
        for number, (pixels, targets) in enumerate(zip(pictures, ([[1], [2, 3]], [[4]], [[99]]), strict=True))
    ]
    return pa.Table.from_pylist(rows, DECODED)


def rows_of(actor, block):
    return [row for table in actor(block) for row in table.to_pylist()]


def levels(row):
    return [np.frombuffer(found.pop("levels"), np.uint8).astype(int) for found in row["maps"]]


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_blocks_are_explained_as_on_a_cpu(model, images, device, method):
    ours, theirs = (
        rows_of(ExplainActor(model, {**OPTIONS, "method": method, "device": one}), images) for one in (device, "cpu")
    )
    assert [(row["image_id"], row["stage"]) for row in ours] == [("0", None), ("1", None), ("2", "explain")]
    assert ours[2] == theirs[2]
    for own, other in zip(ours[:2], theirs[:2], strict=True):
        for some, others in zip(levels(own), levels(other), strict=True):
            assert np.abs(some - others).max() <= 1
        for name in ("predicted", "num_patches", "num_forwards"):
            assert own[name] == other[name]
        for some, others in zip(own["maps"], other["maps"], strict=True):
            assert some["score"] == pytest.approx(others["score"], abs=1e-4)
            assert [some[name] for name in ("target", "num_kept", "num_scored")] == [
                others[name] for name in ("target", "num_kept", "num_scored")
            ]


def test_when_memory_ends_batches_become_smaller_and_nothing_that_failed_is_held(model, images, device, monkeypatch):
    explain = ExplainActor(model, {**OPTIONS, "device": device, "batch_size": 32})
    tap, held, sizes = Model.tap, [], []

    def short_of_memory(self, patches, **asked):
        sizes.append(len(patches))
        assert not any(one() is not None for one in held)
        if len(patches) > 4:
            much = patches.new_empty(1000)
            held.append(weakref.ref(much))
            raise torch.OutOfMemoryError("out of memory")
        return tap(self, patches, **asked)

    monkeypatch.setattr(Model, "tap", short_of_memory)
    found = rows_of(explain, images)
    assert sorted(row["image_id"] for row in found if row["error"] is None) == ["0", "1"]
    assert {size for size in sizes if size > 4} == {32, 16, 8}


def test_blocks_of_maps_are_measured_as_on_a_cpu(model, pictures, device, tolerance):
    """Every metric of the suite, in one go."""
    generator = np.random.default_rng(0)
    rows = [
        {
            **dict.fromkeys(READ.names),
            **dict.fromkeys(("num_patches", "num_scored", "num_kept", "peak_x", "peak_y"), 20),
            "run": "a",
            "image_id": f"{number}.jpg",
            "target": number,
            "target_name": f"class {number}",
            "target_classes": [number],
            "score": 0.5,
            "height": len(pixels),
            "width": pixels.shape[1],
            "saliency": {"bytes": encode_map(quantize(generator.random(pixels.shape[:2]))), "path": None},
            "pixels": pixels.tobytes(),
        }
        for number, pixels in enumerate(pictures)
    ]
    box, outline = (10.0, 5.0, 50.0, 40.0), [[10.0, 5.0, 50.0, 5.0, 50.0, 40.0]]
    known = Annotations({row["image_id"]: Annotation(row["image_id"], [Object("one", box, outline)]) for row in rows})
    classes = {"one": range(5)}
    found = []
    for one in (device, "cpu"):
        actor = EvaluateActor(model, (known, classes), list(SUITE), "segments", "fp32", 16, {"a": 0.1}, one)
        [table] = actor(pa.Table.from_pylist(rows, READ))
        assert table["problem"].null_count == len(rows)
        found.append(table.to_pylist())
    for ours, theirs in zip(*found, strict=True):
        assert ours["forwards"] == theirs["forwards"] > 0
        for name in SUITE:
            if name == "pointing_game_difficult":  # none is
                continue
            assert ours[name] == pytest.approx(theirs[name], abs=tolerance), name
