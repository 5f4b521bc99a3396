"""What is true of walls in real maps: none at the defaults, and what shows them."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray import SESS
from sess_ray.metrics.walls import walls

PAPER = {"pre_filter_ratio": 0.9, "fade": 0.0}


def mean_walls(model, images, method, num_scales, options=None, **settings):
    """Return the mean over images of the walls of their likeliest class's map."""
    sess = SESS(model, method=method, num_scales=num_scales, method_options=options, device="cpu", **settings)
    maps = [sess.explain([image])[0][0] for image in images]
    return np.mean([walls(found.saliency, found.plan, found.patches["kept"]) for found in maps])


@pytest.fixture(scope="module")
def two(photographs):
    return [photographs["chelsea.png"], photographs["coffee.png"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "num_scales", "options"), [("gradcam", 12, None), ("groupcam", 8, {"groups": 2})], ids=str
)
def test_maps_at_the_defaults_show_no_walls_and_few_windows_do(two, lite0, method, num_scales, options):
    assert mean_walls(lite0, two, method, num_scales, options) <= 1.15
    assert mean_walls(lite0, two[:1], method, num_scales, options, **PAPER) > 1.2


@pytest.mark.slow
def test_windows_of_few_scales_show_even_if_all_are_kept_unless_they_fade(two, lite0):
    assert mean_walls(lite0, two, "gradcam", 4, pre_filter_ratio=0.0, fade=0.0) > 1.2
    assert mean_walls(lite0, two, "gradcam", 4, pre_filter_ratio=0.0, fade=0.25) <= 1.15
