"""From s3:// to s3:// on a real object store, which stops, dies and comes back in between."""

from __future__ import annotations

import io
import json
import re
import threading
import time

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import explain_dataset
from sess_ray.io import access
from sess_ray.io.access import Access, parse_options
from sess_ray.io.inputs import list_images
from sess_ray.io.store import Store
from sess_ray.pipeline import evaluate, explain
from sess_ray.pipeline.config import ExplainConfig
from sess_ray.pipeline.evaluate_config import EvaluateConfig
from tests.cloud.servers import seaweed

pytestmark = pytest.mark.usefixtures("ray_session")

IMAGES = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with seaweed(tmp_path_factory.mktemp("weed")) as running:
        files = running.filesystem()
        for bucket in ("images", "results"):
            files.mkdir(bucket)
        rng = np.random.default_rng(5)
        for number in range(IMAGES):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 200, (30, 40, 3), np.uint8)).save(content, "PNG")
            files.pipe_file(f"images/photos/{number % 3}/{number:03}.png", content.getvalue())
        files.pipe_file("images/photos/0/empty.png", b"")
        files.pipe_file('images/photos/1/odd "name" #1?&<b>.png', content.getvalue())
        yield running
    fsspec.config.conf.pop("s3", None)
    access.use(Access())


def settings(server, name, **more):
    return ExplainConfig(
        **{
            "input": "s3://images/photos",
            "output": f"s3://results/{name}",
            "model": "tests.fragile:model",
            "targets": "0,1",
            "num_scales": 1,
            "overlays": 0,
            "storage_option": tuple(server.options),
        }
        | more
    )


def rows(server, name, folder="maps"):
    files = server.filesystem()
    found = sorted(files.glob(f"results/{name}/{folder}/*.parquet"))
    return [row for path in found for row in pq.read_table(io.BytesIO(files.cat_file(path))).to_pylist()]


@pytest.fixture(scope="module")
def whole(server):
    job = explain.prepare(settings(server, "whole"))
    return explain.run(job)


def test_all_rows_once(server, whole):
    assert (whole.images, whole.maps, whole.errors) == (IMAGES + 1, 2 * IMAGES + 2, 1)
    found = rows(server, "whole")
    assert len({(row["image_id"], row["target"]) for row in found}) == len(found) == 2 * IMAGES + 2
    assert 's3://images/photos/1/odd "name" #1?&<b>.png' in {row["uri"] for row in found}
    [error] = rows(server, "whole", "errors")
    assert (error["image_id"], error["error"]) == ("0/empty.png", "the file is empty")


def test_no_credentials_are_written(server, whole):
    assert whole.images
    files = server.filesystem()
    for name in ("run.json", "started.json"):
        text = files.cat_file(f"results/whole/{name}").decode()
        assert "s3.key=***" in text or name == "started.json"
        assert "s3.secret=s" not in text


def test_a_listing_has_pages(server, monkeypatch):
    access.use(Access(parse_options(server.options)))
    filesystem, _ = access.open_filesystem("s3://images")
    call, pages = filesystem.call_s3, []

    def small(method, **asked):
        pages.append(call(method, **asked, MaxKeys=7))
        return pages[-1]

    monkeypatch.setattr(filesystem, "call_s3", small)
    listed = list_images("s3://images/photos")["image_id"].to_pylist()
    assert len(listed) == IMAGES + 2
    assert listed == sorted(listed)
    assert len(pages) > 8
    pages.clear()
    assert list_images("s3://images/photos", limit=3).num_rows == 3


def test_maps_on_s3_are_evaluated(server, whole):
    assert whole.images
    config = EvaluateConfig(
        run=("sess=s3://results/whole",),
        output="s3://results/evaluation",
        metrics="insertion_rise,average_drop",
        storage_option=tuple(server.options),
        limit=6,
    )
    outcome = evaluate.run(evaluate.prepare(config))
    assert not outcome.problems
    assert {line.summary.n for line in outcome.lines if line.group == "all"} == {6}
    assert json.loads(server.filesystem().cat_file("results/evaluation/summary.json"))["maps"] == 6


def test_wrong_secrets_and_missing_buckets_are_one_line(server, capsys):
    def flags(*options):
        return [part for option in options for part in ("--storage-option", option)]

    endpoint, key, secret = server.options
    wrong = [*flags(endpoint, key, "s3.secret=5ecret"), "--retry-seconds", "2"]
    for arguments, message in (
        ([*wrong, "--output", "s3://results/x"], "cannot (open|write)"),
        ([*wrong, "--output", "out/none", "--input", "s3://images/photos"], "no permission to read s3://images/photos"),
        (
            [*flags(endpoint, key, secret), "--output", "out/none", "--input", "s3://none/a"],
            "no such input: s3://none/a",
        ),
    ):
        assert explain_dataset.main(arguments) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert re.search(message, line), line
        assert "5ecret" not in line


@pytest.mark.parametrize("fault", ["stopped", "killed"])
def test_a_store_that_is_gone_for_a_while(server, fault):
    """20 s: what is asked in that time fails or hangs, is tried again, and nothing of it shows."""
    job = explain.prepare(settings(server, fault, read_timeout=5, actors="1"))
    written = threading.Event()
    outages = []

    def outage():
        written.wait(120)
        begin = time.monotonic()
        if fault == "stopped":
            server.pause()
            time.sleep(20)
            server.resume()
        else:
            server.kill()
            time.sleep(20)
            server.start()
        outages.append(time.monotonic() - begin)

    thread = threading.Thread(target=outage)
    thread.start()
    summary = explain.run(job, lambda _: written.set())
    thread.join()
    assert outages
    assert outages[0] >= 20
    assert (summary.total.images, summary.total.maps, summary.total.errors) == (IMAGES + 1, 2 * IMAGES + 2, 1)
    clean = {(row["image_id"], row["target"]): row["saliency"] for row in rows(server, "whole")}
    found = rows(server, fault)
    assert len(found) == len(clean)
    assert {(row["image_id"], row["target"]): row["saliency"] for row in found} == clean
    assert Store(f"s3://results/{fault}").read_json("run.json")
