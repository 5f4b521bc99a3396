"""Regions, pointing games and energy against known answers, and against pixel-by-pixel loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray.boxes import boxes_region
from sess_ray.metrics.localization import (
    DifficultPointingGame,
    EnergyPointingGame,
    PointingGame,
    is_difficult,
    min_max,
    peak_of,
)
from tests.metrics.boxes import point

pytestmark = pytest.mark.filterwarnings("error")


edges = st.floats(-4, 16, allow_nan=False).map(lambda edge: round(edge * 4) / 4)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(boxes=st.lists(st.tuples(edges, edges, edges, edges), max_size=3))
def test_a_box_covers_the_pixels_whose_centres_it_holds(boxes):
    expected = [
        [any(x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x0, y0, x1, y1 in boxes) for x in range(12)]
        for y in range(9)
    ]
    found = boxes_region(np.array(boxes), 9, 12)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([1, 1, 3, 2], 2),
        ([1.5, 1, 3.5, 2], 2),  # its left edge is on a centre, its right edge too: the first counts
        ([1.6, 1, 3.4, 2], 1),
        ([-5, -5, 50, 50], 20),
        ([-5, 0, 1, 4], 4),
        ([5, 0, 9, 4], 0),
        ([-9, 0, -1, 4], 0),
        ([2, 2, 2, 4], 0),
        ([3, 3, 1, 1], 0),
        ([1.6, 0, 2.4, 4], 0),  # between two centres
    ],
)
def test_pixels_of_a_box_in_four_by_five(box, pixels):
    assert boxes_region([box], 4, 5).sum() == pixels


def test_boxes_are_united():
    assert boxes_region([[0, 0, 3, 3], [2, 2, 5, 5]], 6, 6).sum() == 17
    assert boxes_region(np.empty((0, 4)), 6, 6).sum() == 0


@pytest.mark.parametrize(
    ("side", "others", "difficult"), [(9, True, True), (10, True, False), (9, False, False), (20, True, False)]
)
def test_a_difficult_target_is_less_than_a_quarter_and_not_alone(side, others, difficult):
    assert is_difficult(boxes_region([[0, 0, side, side]], 20, 20), others) is difficult


def test_min_max():
    np.testing.assert_allclose(min_max(np.array([[2.0, 4.0, np.nan]])), [[0.5, 1.0, 0.0]])
    np.testing.assert_array_equal(min_max(np.full((2, 3), 0.7)), np.zeros((2, 3)))
    assert min_max(np.array([[0, 255]], np.uint8)).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("dx", "dy", "hit"),
    [
        (0, 0, 1.0),
        (14, 0, 1.0),
        (15, 0, 0.0),
        (0, -14, 1.0),
        (0, -15, 0.0),
        (9, 11, 1.0),
        (9, 12, 0.0),  # exactly 15 pixels
        (-11, 9, 1.0),
        (-12, 9, 0.0),
        (11, 11, 0.0),  # 15.6 pixels
        (10, -11, 1.0),  # 14.9
    ],
)
def test_less_than_fifteen_pixels_are_near_enough(dx, dy, hit):
    target = point(50, 40) > 0
    assert PointingGame().measure(point(50 + dx, 40 + dy), target) == hit
    assert DifficultPointingGame().measure(point(50 + dx, 40 + dy), target) == hit


@pytest.mark.parametrize(("tolerance", "hit"), [(0.0, 0.0), (5.0, 0.0), (5.1, 1.0), (np.inf, 1.0)])
def test_other_tolerances(tolerance, hit):
    assert PointingGame(tolerance).measure(point(53, 44), point(50, 40) > 0) == hit
    assert PointingGame(tolerance).measure(point(50, 40), point(50, 40) > 0) == 1.0
    assert PointingGame(tolerance).measure(point(50, 40), np.zeros((80, 100), bool)) == 0.0


@pytest.mark.parametrize("smooth", [0.02, 0.05])
def test_the_maximum_of_a_blurred_map(smooth):
    rng = np.random.default_rng(15)
    for shape in ((80, 100), (60, 31)):
        saliency = rng.random(shape) ** 8
        saliency[10:14, 20:24] += 0.3  # a patch, and a speck that is brighter
        saliency[50, 5] = 2
        sigma = smooth * max(shape)
        wide = scipy.ndimage.gaussian_filter(saliency, sigma, mode="nearest", radius=math.ceil(4 * sigma))
        y, x = np.unravel_index(wide.argmax(), shape)
        assert peak_of(saliency, smooth) == (x, y)
        assert peak_of(saliency) == (5, 50)
        near = np.zeros(shape, bool)
        near[y, x] = True
        assert PointingGame(3, smooth=smooth).measure(saliency, near) == 1.0
        assert PointingGame(3).measure(saliency, near) == float(np.hypot(50 - y, 5 - x) < 3)
    assert PointingGame(smooth=0.02).measure(np.zeros((80, 100)), np.ones((80, 100), bool)) == 0.0


def test_the_nearest_of_several_parts_counts():
    target = (point(0, 0) + point(99, 79)) > 0
    assert PointingGame().measure(point(90, 70), target) == 1.0
    assert PointingGame().measure(point(50, 40), target) == 0.0


def test_the_first_of_several_maxima_points():
    saliency = point(90, 10) + point(10, 11)
    assert PointingGame(0).measure(saliency, point(90, 10) > 0) == 1.0
    assert PointingGame(0).measure(saliency, point(10, 11) > 0) == 0.0


def test_a_peak_that_is_known_better():
    saliency = point(20, 10) + point(80, 70)  # rounded, they are equal
    target = point(80, 70) > 0
    assert PointingGame().measure(saliency, target) == 0.0
    assert PointingGame().measure(saliency, target, peak=(80, 70)) == 1.0
    assert PointingGame(0).measure(saliency, target, peak=(79, 70)) == 0.0


def test_hit_rates_are_averaged_over_classes():
    target = point(50, 40) > 0
    for kind in (PointingGame, DifficultPointingGame):
        metric = kind()
        for index in range(3):
            metric.update(point(50, 40), target, key=f"{index}.jpg", label="cat")
        metric.update(point(0, 0), target, key="3.jpg", label="dog")
        assert (metric.n, metric.summary().mean) == (4, 0.5)
    energy = EnergyPointingGame()
    for index, label in enumerate(("cat", "cat", "cat", "dog")):
        energy.update(
            point(50 * (label == "cat"), 40), boxes_region([[50, 0, 100, 80]], 80, 100), key=str(index), label=label
        )
    assert energy.summary().mean == 0.75


def test_energy_is_a_share_of_the_sum():
    saliency = np.array([[0.1, 0.2, 0.3], [0.0, 0.4, 1.0]])
    assert EnergyPointingGame().measure(saliency, boxes_region([[1, 0, 3, 1]], 2, 3)) == pytest.approx(0.25)
    assert EnergyPointingGame().measure(saliency, np.zeros((2, 3), bool)) == 0.0


def test_sums_of_large_maps_are_exact():
    saliency = np.full((2000, 3000), 0.1, np.float32)
    found = EnergyPointingGame().measure(saliency, boxes_region([[0, 0, 1500, 2000]], 2000, 3000))
    assert found == pytest.approx(0.5, abs=1e-12)
