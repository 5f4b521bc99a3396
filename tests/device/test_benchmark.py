"""The command for a GPU machine, on the pretend device: its host's time is what it does not spend waiting."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sess_ray import SESS, load_model
from sess_ray.benchmark.device import Runner, table
from sess_ray.transfer import Download
from tests import nets
from tests.device import pretend

PAUSE = 2.0


@pytest.mark.device
def test_waits_are_no_time_of_the_host(device, monkeypatch):
    if device.type != pretend.NAME:
        pytest.skip("of the pretend device")
    read = Download.read

    def slow(self):
        time.sleep(PAUSE)
        return read(self)

    monkeypatch.setattr(Download, "read", slow)
    model = load_model(nets.Small(), layer="third", input_size=nets.SIDE)
    runner = Runner("now", SESS(model, num_scales=1, device=device, batch_size=4), {})
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    seconds = runner(images)
    assert Download.read is slow
    assert runner.host[0] == pytest.approx(seconds - 2 * PAUSE, abs=0.2)
    row = runner.host_time()
    assert row["host_ms"] == pytest.approx(1000 * runner.host[0] * 4 / runner.windows)
    assert "host_ms" in table([row])


@pytest.mark.device
def test_on_a_cpu_all_of_it_is_the_hosts():
    model = load_model(nets.Small(), layer="third", input_size=nets.SIDE)
    runner = Runner("now", SESS(model, num_scales=1, device="cpu"), {})
    runner([np.zeros((40, 60, 3), np.uint8)])
    assert runner.host_time() == {}
