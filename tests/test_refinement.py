from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sess_ray import SessError
from sess_ray.metrics.localization import reaches
from sess_ray.refinement import GrabCut, refinement

HEIGHT, WIDTH = 120, 160


def disc(y, x, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def scene(seed, radius=28):
    """Return noisy pixels of a red disc on green, the disc, and a map whose maximum is beside its middle."""
    draw = np.random.default_rng(seed)
    y, x = draw.uniform(45, 75), draw.uniform(50, 110)
    thing = disc(y, x, radius)
    pixels = np.where(thing[..., None], (190, 60, 50), (60, 150, 70)) + draw.normal(0, 12, (HEIGHT, WIDTH, 3))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    away = (rows - y - draw.uniform(-9, 9)) ** 2 + (columns - x - draw.uniform(-9, 9)) ** 2
    return pixels.clip(0, 255).astype(np.uint8), thing, np.exp(-away / (2 * 22**2))


def overlap(mask, thing):
    return (mask & thing).sum() / (mask | thing).sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_follows_the_edge_of_the_object(seed):
    pixels, thing, saliency = scene(seed)
    best = max(overlap(reaches(saliency, threshold), thing) for threshold in np.arange(0.05, 1, 0.05))
    found = overlap(GrabCut()(pixels, saliency, 0.25), thing)
    assert found > 0.95
    assert found > best


def test_the_mask_is_the_same_again_whatever_opencv_has_drawn_before():
    import cv2

    pixels, _, saliency = scene(7)
    noise = np.random.default_rng(3).integers(0, 256, pixels.shape, np.uint8)  # no edge decides: the mixtures do
    masks = []
    for seed in (1, 2, 3):
        cv2.setRNGSeed(seed)
        masks.append(GrabCut()(noise, saliency, 0.25))
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_what_the_map_is_sure_of_stays():
    pixels, _, saliency = scene(5)
    noise = np.random.default_rng(4).integers(0, 256, pixels.shape, np.uint8)
    mask = GrabCut(background=0.2, foreground=0.7, side=WIDTH)(noise, saliency, 0.4)
    scaled = (saliency - saliency.min()) / np.ptp(saliency)
    assert mask[scaled >= 0.7].all()
    assert not mask[scaled < 0.2].any()


def test_all_certain_is_the_threshold():
    pixels, _, saliency = scene(6)
    for options in ({"background": 0.0, "foreground": 0.0}, {"background": 1.0, "foreground": 1.0, "side": 4}):
        found = GrabCut(**options)(pixels, saliency, 0.3)
        np.testing.assert_array_equal(found, reaches(saliency, 0.3))


@given(st.data())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_any_image_and_map_give_a_mask_of_their_size(data):
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    pixels = data.draw(arrays(np.uint8, (*shape, 3), elements=st.sampled_from([0, 100, 255])))
    saliency = data.draw(arrays(np.float32, shape, elements=st.sampled_from([0, 0.05, 0.3, 0.6, 1])))
    mask = GrabCut(side=data.draw(st.sampled_from([1, 5, 200])))(pixels, saliency, 0.25)
    assert (mask.shape, mask.dtype) == (shape, bool)
    assert mask.any() == (np.ptp(saliency) > 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scissors", {}, "unknown refinement 'scissors'"),
        ("grabcut", {"size": "3"}, "unknown option of grabcut 'size'"),
        ("grabcut", {"side": "many"}, "side=many: use a whole number"),
        ("grabcut", {"background": "x"}, "background=x: use a number"),
        ("grabcut", {"background": "0.7"}, "the first not above the second"),
        ("grabcut", {"foreground": "nan"}, "use shares"),
        ("grabcut", {"iterations": "0"}, "use 1 or more"),
    ],
)
def test_wrong_options_are_one_line(name, options, message):
    with pytest.raises(SessError, match=message) as error:
        refinement(name, options)
    assert "\n" not in str(error.value)
