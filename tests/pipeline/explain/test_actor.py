"""The actor by itself, without Ray: what it does when memory ends."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from sess_ray import load_model
from sess_ray.models.model import Model
from sess_ray.pipeline.explain import actor
from sess_ray.pipeline.explain.stages import DECODED
from tests import nets


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    size = {"height": 60, "width": 80, "rows": 60, "columns": 80}
    empty = dict.fromkeys(DECODED.names)
    return pa.Table.from_pylist(
        [
            {
                **empty,
                **size,
                "image_id": str(number),
                "uri": f"{number}.jpg",
                "targets": [[1]],
                "pixels": generator.integers(0, 256, 60 * 80 * 3, np.uint8).tobytes(),
            }
            for number in range(3)
        ],
        DECODED,
    )


def test_what_a_failed_batch_held_is_free_when_its_images_are_tried_again(table, monkeypatch):
    monkeypatch.setattr(actor, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(actor.metering, "add", lambda *_, **__: None)
    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    explain = actor.ExplainActor(model, {"num_scales": 3, "device": "cpu", "batch_size": 16})
    tap, held, sizes = Model.tap, [], []

    def short_of_memory(self, patches, **asked):
        sizes.append(len(patches))
        assert not any(one() is not None for one in held)
        if len(patches) > 4:
            much = torch.empty(1000)
            held.append(weakref.ref(much))
            raise torch.OutOfMemoryError("out of memory")
        return tap(self, patches, **asked)

    monkeypatch.setattr(Model, "tap", short_of_memory)
    found = list(explain._explained(table))
    assert [row.get("error") for row in found] == [None] * 3
    assert held
    assert {16, 8, 4} <= set(sizes)


def test_an_image_without_a_class_above_the_threshold_is_an_error_and_costs_no_other(table, monkeypatch):
    monkeypatch.setattr(actor, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(actor.metering, "add", lambda *_, **__: None)
    model = load_model(nets.Small(scale=3), layer="third", input_size=nets.SIDE, activation="sigmoid")
    explain = actor.ExplainActor(model, {"num_scales": 1, "device": "cpu"})
    rows = table.to_pylist()
    for row, top in zip(rows, ("p>0.9999", "p>0.01", "p>0.9999"), strict=True):
        row |= {"top": top, "targets": None}
    found = {row["image_id"]: row for row in explain._explained(pa.Table.from_pylist(rows, DECODED))}
    assert [found[name].get("error") for name in "012"] == ["no class has p>0.9999", None, "no class has p>0.9999"]
    assert found["0"]["stage"] == "targets"
    assert len(found["1"]["maps"]) == 5
