"""Rows that kill their worker, whatever it does: they end as errors, and the others as if nothing had happened."""

from __future__ import annotations

import os
import signal
import tarfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from ray.exceptions import RayActorError

from sess_ray.access import Access
from sess_ray.pipeline.cluster.isolation import REASON, apart, deadly, rows_of
from sess_ray.pipeline.cluster.session import ARROW
from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.judging import read_maps
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.stages import TASKS, died, read_and_decode
from tests.fragile import Deadly
from tests.pipeline.explain.jobs import rows

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def images(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("chelsea.png", (321, 240)), ("rocket.jpg", (320, 240)), ("coffee.png", (160, 120))):
        Image.fromarray(photographs[name]).resize(size).save(folder / name)
    return folder


def test_each_row_has_a_process_that_may_die_of_it(tmp_path):
    def times_ten(table):
        [number] = table["image_id"].to_pylist()
        died = Path(tmp_path, str(number))
        if number == 3 or (number == 5 and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield pa.table({"image_id": [10 * number], "process": [os.getpid()]})

    table = pa.table({"image_id": [1, 3, 4, 5, 6], "uri": ["http://me:secret@x"] * 5, "pixels": [b""] * 5})
    names = ["image_id", "process", "uri", "stage", "error"]
    schema = pa.schema([(name, pa.int64() if name in names[:2] else pa.string()) for name in names])
    found = list(apart(lambda: times_ten, rows_of(table), partial(died, schema=schema, stage="multiply")))
    assert [block["image_id"].to_pylist() for block in found] == [[10], [3], [40], [50], [60]]
    [failed] = found[1].to_pylist()
    assert failed == {
        "image_id": 3,
        "process": None,
        "uri": "http://x",
        "stage": "multiply",
        "error": REASON,
    }
    first, third, fourth, fifth = (block["process"][0].as_py() for block in found if block is not found[1])
    assert len({first, third, fourth, os.getpid()}) == 4
    assert fourth == fifth


def test_a_process_that_can_not_start_is_not_the_rows_fault():
    def make():
        raise MemoryError("no room for another")

    table = pa.table({"image_id": ["a"], "uri": ["a.jpg"]})
    with pytest.raises(RayActorError, match="no room for another"):
        list(apart(make, rows_of(table), pa.Table.to_pylist))


def test_blocks_are_not_deadly_outside_of_workers():
    assert not deadly()


def test_an_image_that_kills_who_explains_it_is_an_error(images, tmp_path):
    output = tmp_path / "out"
    settings = {"input": str(images), "output": str(output), "num_scales": 1, "actors": "1", "overlays": 0}
    summary = run(prepare(ExplainConfig(model="tests.fragile:deadly_model", **settings)))
    assert (summary.images, summary.errors) == (2, 1)
    assert {row["image_id"] for row in rows(output)} == {"chelsea.png", "coffee.png"}
    uri = str(images / "rocket.jpg")
    assert rows(output, "errors") == [{"image_id": "rocket.jpg", "uri": uri, "stage": "explain", "error": REASON}]


def test_an_image_that_kills_who_decodes_it_is_an_error(ray_session, images, tmp_path):
    """Also one in a tar, of which another image is done."""
    names = sorted(path.name for path in images.iterdir())
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name in names:
            tar.add(images / name, name)
    shard = {"image_id": "images.tar", "uri": str(tmp_path / "images.tar"), "targets": [[1]], "done": names[:1]}
    tasks = [[{"image_id": name, "uri": str(images / name), "targets": [[1]]} for name in names], [shard]]
    limits = {"access": Access(), "max_pixels": Deadly(10**6)}
    blocks = ray_session.data.from_blocks([pa.Table.from_pylist(rows, TASKS) for rows in tasks])
    decoded = blocks.map_batches(read_and_decode, fn_kwargs=limits, **ARROW).take_all()
    assert {row["image_id"]: (row["error"], row["height"]) for row in decoded} == {
        "chelsea.png": (None, 240),
        "coffee.png": (None, 120),
        "rocket.jpg": (REASON, None),
        "images.tar/coffee.png": (None, 120),
        "images.tar/rocket.jpg": (REASON, None),
    }


@pytest.fixture(scope="module")
def maps(images, tmp_path_factory):
    """A run with a map of each image."""
    output = str(tmp_path_factory.mktemp("maps"))
    settings = {"targets": "0", "num_scales": 1, "actors": "1", "overlays": 0}
    run(prepare(ExplainConfig(input=str(images), output=output, model="tests.faults.tiny:model", **settings)))
    return output


def problems(output):
    return [(row["image_id"], row["problem"], row["detail"]) for row in rows(output, "problems")]


def test_a_map_that_kills_who_measures_it_is_a_problem(maps, tmp_path):
    output = tmp_path / "evaluation"
    settings = {"model": "tests.fragile:deadly_model", "metrics": "average_drop", "actors": "1"}
    evaluation = prepare_evaluation(EvaluateConfig(run=(f"sess={maps}",), output=str(output), **settings))
    [line] = [line for line in evaluate.run(evaluation).lines if line.group == "all"]
    assert line.summary.n == 2
    assert problems(output) == [("rocket.jpg", "evaluate", REASON)]


def test_of_an_image_that_kills_who_decodes_it_the_map_is_measured(ray_session, maps):
    evaluation = prepare_evaluation(EvaluateConfig(run=(f"sess={maps}",), output=f"{maps}/evaluation"))
    reading = {"access": Access(), "runs": {"sess": maps}, "pixels": True, "max_pixels": Deadly(10**6)}
    read = (
        ray_session.data.from_blocks(evaluation.selection.blocks)
        .map_batches(read_maps, fn_kwargs=reading, **ARROW)
        .take_all()
    )
    assert {row["image_id"]: row["problem"] for row in read} == {
        "chelsea.png": None,
        "coffee.png": None,
        "rocket.jpg": "no image",
    }
    assert all(row["saliency"]["bytes"] for row in read)
    assert [row["pixels"] is None for row in read] == [row["detail"] == REASON for row in read]
