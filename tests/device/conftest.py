"""The device that these tests run on. On the pretend one they need a process of their own: it changes torch."""

from __future__ import annotations

import os
import sys

import pytest
import torch


def pytest_collection_modifyitems(config, items):
    if config.getoption("--device") is None:
        leave_out = pytest.mark.skip(reason="needs --device pretend, or cuda")
        for item in items:
            if item.get_closest_marker("device"):
                item.add_marker(leave_out)


@pytest.fixture(scope="session")
def device(request):
    name = request.config.getoption("--device")
    if name == "pretend":
        from tests.device import pretend

        return pretend.install()
    return torch.device(name)


@pytest.fixture(scope="session")
def tolerance(device):
    """How far float32 maps may be from the CPU's: sums come in another order."""
    return 1e-5 if device.type == "pretend" else 1e-3


@pytest.fixture(scope="module")
def model():
    """A small net, whose logits are far enough apart for windows to be kept and dropped."""
    from sess_ray import load_model
    from tests import nets

    return load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    if config.getoption("--device") == "pretend":  # autograd's thread of the device would end in a complaint
        sys.stdout.flush()
        os._exit(config.stash.get(STATUS, 1))


STATUS = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config.stash[STATUS] = int(exitstatus)
