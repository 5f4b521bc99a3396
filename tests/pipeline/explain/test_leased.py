"""A run has its output for itself; what another has left there meanwhile is seen."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.lease import Lease
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare
from tests.pipeline.explain.jobs import picture

FINISHED = pa.Table.from_pylist([{"image_id": "0.png", "target": 1}], MAPS)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.png").write_bytes(picture(0))
    settings = {"input": str(tmp_path / "images"), "output": str(tmp_path / "out"), "num_scales": 0, "overlays": 0}
    return ExplainConfig(**settings, model="tests.fragile:model", targets="top1")


def test_an_output_that_is_taken_is_left_alone(config):
    store = Store(config.output)
    with Lease() as other:
        other.take(store)
        before = sorted(store._filesystem.find(config.output))
        with Lease() as lease, pytest.raises(SessError, match="has worked on output"):
            prepare(config, claim=lease.take)
        job = prepare(config)
        with pytest.raises(SessError, match="has worked on output"):
            run(job)
        assert sorted(store._filesystem.find(config.output)) == before
    with Lease() as lease:
        assert prepare(config, claim=lease.take).left == 1


def test_what_another_run_did_till_the_output_was_taken_is_not_done_again(config):
    store = Store(config.output)

    def late(_):
        prepare(config).start()
        store.write_table("maps", FINISHED)
        return False  # it has ended before anybody looked

    assert prepare(config, claim=late).left == 0


def test_a_run_gives_its_output_back(config):
    prepare(config).start()
    Store(config.output).write_table("maps", FINISHED)
    with Lease() as lease:
        summary = run(prepare(config, claim=lease.take), lease=lease)
        assert not lease.is_taken
    assert summary.total.images == 1
    assert run(prepare(config)).total.images == 1
