"""Images as arrays of any layout in memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sess_ray import SESS, load_model
from sess_ray.metrics.perturbation import AverageDrop, at_input_size
from tests import nets
from tests.layouts import LAYOUTS


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_map_does_not_depend_on_where_pixels_lie(model, pixels, layout):
    sess = SESS(model, num_scales=1, device="cpu")
    image = LAYOUTS[layout](pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [[found]] = sess.explain([image], [[1]])
    [[expected]] = sess.explain([pixels], [[1]])
    np.testing.assert_array_equal(found.saliency, expected.saliency)
    assert found.saliency.any()
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "PIL"])
def test_nor_does_what_a_metric_says(model, pixels, layout):
    ready = SESS(model, device="cpu").model
    saliency = np.linspace(0, 1, 41 * 53, dtype=np.float32).reshape(41, 53)
    given = LAYOUTS[layout](pixels), {"upside down": np.flipud, "mirrored": np.fliplr}.get(layout, np.array)(saliency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = AverageDrop().ask(ready, *at_input_size(*given, ready), 1, key="image")
    plain = [np.ascontiguousarray(one) for one in given]
    assert found == AverageDrop().ask(ready, *at_input_size(*plain, ready), 1, key="image")
