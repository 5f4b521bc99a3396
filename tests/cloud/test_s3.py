"""From s3:// to s3:// on a real object store, which stops, dies and comes back in between."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray import SessError, access
from sess_ray.access import Access
from sess_ray.cli import main
from sess_ray.io.inputs import list_images
from sess_ray.io.lease import Lease, create
from sess_ray.io.listing import walk
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.settings import parse_options
from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.explain import job as explain
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.listing import job as listing
from sess_ray.pipeline.listing.config import ListConfig
from sess_ray.pipeline.listing.job import prepare as prepare_list
from sess_ray.pipeline.listing.job import run as run_list
from tests.cloud.servers import KEY, SECRET, seaweed

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("ray_session")]

IMAGES = 60
OUTAGE_SECONDS = 6


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
            "actors": "1",
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
    job = prepare(settings(server, "whole"))
    return explain.run(job)


def test_one_of_several_runs_has_an_output(server):
    access.use(settings(server, "leased").access())
    store = Store("s3://results/leased")
    assert create(store, "new", b"1")
    assert not create(store, "new", b"2")
    with Lease() as first, Lease() as second:
        first.take(store)
        with pytest.raises(SessError, match=r"has worked on output s3://results/leased since"):
            second.take(store)
        first.release()
        second.take(store)


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
    paths = list(walk(filesystem, "images/photos"))
    assert [path.removeprefix("images/photos/") for path in paths] == listed
    assert {name for page in pages for entry in page.get("Contents", ()) for name in entry} == {"Key"}
    assert filesystem.ls("images/photos/0", detail=True, refresh=True)[0]["LastModified"]  # for whoever else asks
    for place in (0, 7, 30, len(paths) - 1):
        assert list(walk(filesystem, "images/photos", paths[place])) == paths[place + 1 :]
    pages.clear()
    assert list_images("s3://images/photos", limit=3).num_rows == 3


def test_a_list_on_s3_goes_on_behind_its_last_name(server, monkeypatch):
    """What is before it is not asked for again: objects that are gone by then stay in the list."""
    monkeypatch.setattr(listing, "PART", 11)
    access.use(Access(parse_options(server.options)))
    filesystem, _ = access.open_filesystem("s3://results")
    config = {"input": "s3://images/photos", "storage_option": tuple(server.options)}
    run_list(prepare_list(ListConfig(**config, output="s3://results/lists/whole.parquet")))
    whole = filesystem.cat_file("results/lists/whole.parquet")
    expected = list_images("s3://images/photos")
    assert list_images("s3://results/lists/whole.parquet").equals(expected)

    def stop(done):
        counts.append(done)
        if sum(counts) > 40:
            raise InterruptedError

    counts: list[int] = []
    stopped = ListConfig(**config, output="s3://results/lists/m.parquet")
    with pytest.raises(InterruptedError):
        run_list(prepare_list(stopped), stop)
    assert not filesystem.exists("results/lists/m.parquet")
    first, asked, call = expected["uri"][0].as_py(), [], filesystem.call_s3
    content = filesystem.cat_file(first)
    filesystem.rm_file(first)
    monkeypatch.setattr(filesystem, "call_s3", lambda *names, **given: asked.append(given) or call(*names, **given))
    again = prepare_list(stopped)
    assert again.progress.items == 33
    run_list(again)
    assert any(given.get("StartAfter") == expected["uri"][32].as_py().removeprefix("s3://images/") for given in asked)
    filesystem.pipe_file(first, content)
    assert filesystem.cat_file("results/lists/m.parquet") == whole
    assert filesystem.find("results/lists") == ["results/lists/m.parquet", "results/lists/whole.parquet"]


def test_maps_on_s3_are_evaluated(server, whole):
    assert whole.images
    config = EvaluateConfig(
        run=("sess=s3://results/whole",),
        output="s3://results/evaluation",
        metrics="insertion_rise,average_drop",
        storage_option=tuple(server.options),
        limit=6,
    )
    outcome = evaluate.run(prepare_evaluation(config))
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
        assert main.run("explain", arguments) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert re.search(message, line), line
        assert "5ecret" not in line


@pytest.fixture
def other_options(monkeypatch):
    """Options of s3 of this test alone."""
    before = dict(fsspec.config.conf.pop("s3", {}))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    def use(*options):
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # else one that knows the credentials of before
        fsspec.config.conf.pop("s3", None)
        access.use(Access(parse_options(options)))

    yield use
    fsspec.config.conf["s3"] = before
    access.use(Access())


@pytest.mark.parametrize("source", ["profile", "environment", "nothing"])
def test_credentials_come_from_where_the_clouds_own_tools_look(server, other_options, source, monkeypatch, tmp_path):
    endpoint, *_ = server.options
    (tmp_path / "credentials").write_text(f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if source == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    other_options(endpoint, *(["s3.profile=mine"] if source == "profile" else []))
    if source == "nothing":
        with pytest.raises(SessError, match="s3://images/photos"):
            list_images("s3://images/photos")
    else:
        assert list_images("s3://images/photos").num_rows == IMAGES + 2


def test_who_pays_and_who_is_nobody_is_told_to_the_store(other_options):
    """Headers of requests, as a store gets them: SeaweedFS takes them, and does not say."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers)
            listed = "<Contents><Key>a/x.png</Key><Size>1</Size></Contents>"
            namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
            content = (
                f'<ListBucketResult xmlns="{namespace}"><KeyCount>1</KeyCount>{listed}</ListBucketResult>'.encode()
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        endpoint = f"s3.endpoint_url=http://127.0.0.1:{listening.server_port}"
        other_options(endpoint, "s3.key=k", "s3.secret=s", "s3.requester_pays=true")
        assert list_images("s3://bucket/a")["image_id"].to_pylist() == ["x.png"]
        assert asked[-1]["x-amz-request-payer"] == "requester"
        assert "Authorization" in asked[-1]
        other_options(endpoint, "s3.anon=true")
        assert list_images("s3://bucket/a").num_rows == 1
        assert "Authorization" not in asked[-1]
        assert "x-amz-request-payer" not in asked[-1]
        listening.shutdown()


def test_a_store_that_is_gone_for_a_while(server):
    """What is asked in that time hangs, longer than a read may take, or fails; it is tried again, and nothing shows."""
    job = prepare(settings(server, "gone", read_timeout=3))
    written = threading.Event()
    outages = []

    def outage(end, begin):
        since = time.monotonic()
        end()
        time.sleep(OUTAGE_SECONDS)
        begin()
        outages.append(time.monotonic() - since)

    def outages_begin():
        written.wait(120)
        outage(server.pause, server.resume)
        outage(server.kill, server.start)

    thread = threading.Thread(target=outages_begin)
    thread.start()
    summary = explain.run(job, lambda _: written.set())
    thread.join()
    assert len(outages) == 2
    assert min(outages) >= OUTAGE_SECONDS > job.config.read_timeout
    assert (summary.total.images, summary.total.maps, summary.total.errors) == (IMAGES + 1, 2 * IMAGES + 2, 1)
    clean = {(row["image_id"], row["target"]): row["saliency"] for row in rows(server, "whole")}
    found = rows(server, "gone")
    assert len(found) == len(clean)
    assert {(row["image_id"], row["target"]): row["saliency"] for row in found} == clean
    assert Store("s3://results/gone").read_json("run.json")
