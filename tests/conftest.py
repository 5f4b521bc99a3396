"""Models, images and the one Ray session that the tests share."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

import sess_ray
import sess_ray.models.vision  # before a test imports torchvision, and with it torch's compiler
from sess_ray import demo

# gcsfs asks over gRPC for the kind of a bucket, which the test's server does not speak. Before Ray starts its workers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# Of Ray's workers, to the endpoint that Prometheus scrapes; else every ten seconds.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")
# Read when ray is imported, which some tests do before session.py can set it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SESS_RAY_DATA", ROOT.parent / "shared" / "data"))
NEEDS = {"ray_session": "ray", "browser": "browser"}  # fixture -> mark
ORDER = ("session", "own", "")  # by what tests start of Ray
NOT_FAST = {"ray", "server", "browser", "slow"}


@pytest.fixture(scope="session", autouse=True)
def _threads():
    """As an actor computes; for nets as small as the tests' more of them wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed(request):
    """A test's random weights are its own, whatever ran before it."""
    torch.manual_seed(crc32(request.node.nodeid.encode()))


def pytest_addoption(parser):
    parser.addoption("--device", help="run the tests of the mark 'device' there: pretend, or cuda")


@pytest.hookimpl(tryfirst=True)  # before -m leaves some out
def pytest_collection_modifyitems(items):
    """Mark tests by the fixtures that they use; those without any mark of what takes long are `fast`."""
    for item in items:
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(NEEDS[fixture])
        marks = {mark.name for mark in item.iter_markers()}
        if NOT_FAST.isdisjoint(marks):
            item.add_marker("fast")
        if "ray" in marks and not starts_ray(item.nodeid.partition("::")[0]):
            raise pytest.UsageError(f"{item.nodeid} starts Ray, but its file names neither ray_session nor mark.ray")
    items.sort(key=lambda item: ORDER.index(starts_ray(item.nodeid.partition("::")[0])))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Leave all that use the shared session to one of pytest-xdist's workers; the others begin with whole clusters.

    Tests by themselves, which are short, come last, so that all workers end at about the same time.
    """
    from xdist.scheduler import LoadScopeScheduling

    class SessionFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return {"session": "session", "own": file}.get(starts_ray(file), nodeid)

    return SessionFirst(config, log)


@cache
def starts_ray(file):
    """Say how tests of a file start Ray, as their fixtures or marks say; the scheduler knows no more than names."""
    text = (ROOT / file).read_text()
    return "session" if "ray_session" in text else "own" if re.search(r"mark\.ray\b", text) else ""


@pytest.fixture(scope="session")
def lite0():
    """A real classifier whose weights come with a package."""
    return demo.efficientnet_lite0()


@pytest.fixture(scope="session")
def squeezenet():
    """SqueezeNet 1.1, its weights random: for what does not depend on their values."""
    return sess_ray.load_model("squeezenet1_1", "random")


@pytest.fixture(scope="session")
def real_squeezenet():
    weights = SHARED / "weights" / "squeezenet1_1.safetensors"
    if not weights.exists():
        pytest.skip(
            "needs real SqueezeNet weights: set SESS_RAY_DATA to a folder with weights/squeezenet1_1.safetensors"
        )
    return sess_ray.load_model("squeezenet1_1", str(weights))


@pytest.fixture(scope="session")
def photographs():
    """RGB photographs that come with scikit-image, (H, W, 3) uint8, by name."""
    return {item.image_id: np.asarray(Image.open(item.uri).convert("RGB")) for item in demo.images()}


@pytest.fixture(scope="session")
def ray_session():
    from sess_ray.pipeline.cluster.session import connect

    connect(None)
    import ray

    yield ray
    ray.shutdown()
