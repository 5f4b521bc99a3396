"""Arrays on their way to a device: one copy, whatever their layout, and no waiting."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from sess_ray.transfer import pixels_on
from tests.device import counting
from tests.layouts import LAYOUTS


@pytest.mark.device
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "PIL"])
def test_arrays_of_any_layout_arrive_by_one_copy(device, layout, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    given = LAYOUTS[layout](pixels)
    monkeypatch.setattr(np, "ascontiguousarray", None)
    counting.COUNTS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = pixels_on(device, given)
    if device.type == "pretend":
        assert (counting.COUNTS.copies, counting.COUNTS.waits) == (1, {})
    assert there.device.type == device.type
    np.testing.assert_array_equal(there.cpu().numpy(), pixels)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "PIL"])
def test_on_a_cpu_they_are_taken_as_they_are(layout):
    pixels = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    given = LAYOUTS[layout](pixels)
    found = pixels_on(torch.device("cpu"), given)
    np.testing.assert_array_equal(found.numpy(), pixels)
    as_it_is = given.flags.c_contiguous and given.flags.writeable
    assert np.shares_memory(found.numpy(), given) == as_it_is
