"""Metrics of maps and regions against known answers, and against pixel-by-pixel loops."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.metrics.localization import (
    DifficultPointingGame,
    EnergyPointingGame,
    PointingGame,
    box_iou,
    boxes_region,
    is_difficult,
    largest_boxes,
    min_max,
    part_boxes,
    peak_of,
)
from sess_ray.metrics.thresholds import THRESHOLDS, CorLoc, MaskIoU, MaxBoxAcc, MaxBoxAccV2, PooledPxAP, PxAP

METRICS = (
    *(PointingGame, DifficultPointingGame, EnergyPointingGame, MaxBoxAcc, CorLoc, MaskIoU),
    *(MaxBoxAccV2, PxAP, PooledPxAP),
)
OF_BOXES = (MaxBoxAcc, CorLoc, MaxBoxAccV2)
BOX = np.array([[30.0, 20.0, 70.0, 60.0]])  # 40 x 40 of 100 x 80: a fifth
REGION = boxes_region(BOX, 80, 100)
edges = st.floats(-4, 16, allow_nan=False).map(lambda edge: round(edge * 4) / 4)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def point(x, y, height=80, width=100):
    saliency = np.zeros((height, width), np.float32)
    saliency[y, x] = 1
    return saliency


def flooded(mask):
    """Return the pixels {(y, x)} of each part of a mask, by the row-major order of their first pixels."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    parts = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        part, border = {start}, [start]
        while border:
            y, x = border.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    part.add(near)
                    border.append(near)
        parts.append(part)
    return parts


def box_by_hand(saliency, twentieths):
    """Return the box at a threshold of so many twentieths, for a map of whole numbers."""
    low, high = int(saliency.min()), int(saliency.max())
    part = max(flooded(20 * (saliency - low) >= twentieths * (high - low)), key=len)  # the first of several
    rows, columns = [y for y, _ in part], [x for _, x in part]
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def iou_by_hand(first, second):
    """Return that of two boxes with edges at quarters of pixels, by counting cells of a quarter."""
    cells = [
        {
            (x, y)
            for x in range(*(round(4 * box[i]) for i in (0, 2)))
            for y in range(*(round(4 * box[i]) for i in (1, 3)))
        }
        for box in (first, second)
    ]
    union = len(cells[0] | cells[1])
    return len(cells[0] & cells[1]) / union if union else 0.0


# Regions


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


# Known answers


def test_a_perfect_map():
    saliency = REGION.astype(np.float32)
    assert PointingGame().measure(saliency, REGION) == 1.0
    assert EnergyPointingGame().measure(saliency, REGION) == 1.0
    # At threshold 0 the whole image counts.
    np.testing.assert_array_equal(MaxBoxAcc().measure(saliency, BOX), [0.0] + [1.0] * 19)
    np.testing.assert_array_equal(MaskIoU().measure(saliency, REGION), [0.2] + [1.0] * 19)
    assert CorLoc().measure(saliency, BOX) == 1.0


def test_an_inverted_map():
    saliency = 1 - REGION.astype(np.float32)
    assert PointingGame().measure(saliency, REGION) == 0.0  # its first maximum is the corner
    assert EnergyPointingGame().measure(saliency, REGION) == 0.0
    # What is around the target has the box of the whole image.
    np.testing.assert_array_equal(MaxBoxAcc().measure(saliency, BOX), [0.0] * 20)
    np.testing.assert_array_equal(MaskIoU().measure(saliency, REGION), [0.2] + [0.0] * 19)
    assert CorLoc().measure(saliency, BOX) == 0.0
    assert CorLoc().measure(saliency, np.array([[0, 0, 100, 40]])) == 1.0


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_empty_map_is_a_miss(value):
    saliency = np.full((80, 100), value)
    everything = np.ones((80, 100), bool)
    for region, boxes in ((REGION, BOX), (everything, [[0, 0, 100, 80]])):
        assert PointingGame().measure(saliency, region) == 0.0
        assert PointingGame().measure(saliency, region, peak=(40, 40)) == 0.0
        assert EnergyPointingGame().measure(saliency, region) == 0.0
        np.testing.assert_array_equal(MaxBoxAcc().measure(saliency, boxes), [0.0] * 20)
        np.testing.assert_array_equal(MaskIoU().measure(saliency, region), [0.0] * 20)
        assert CorLoc().measure(saliency, boxes) == 0.0


@pytest.mark.parametrize("value", [1.0, 0.5, 0.003])
def test_a_constant_map(value):
    saliency = np.full((80, 100), value, np.float32)
    assert PointingGame().measure(saliency, REGION) == 0.0  # the corner
    assert PointingGame().measure(saliency, boxes_region([[0, 0, 5, 5]], 80, 100)) == 1.0
    assert EnergyPointingGame().measure(saliency, REGION) == pytest.approx(0.2, abs=1e-9)
    np.testing.assert_array_equal(MaxBoxAcc().measure(saliency, [[0, 0, 100, 80]]), [0.0] * 20)
    np.testing.assert_array_equal(MaskIoU().measure(saliency, REGION), [0.0] * 20)


def test_uniform_random_maps():
    rng = np.random.default_rng(11)
    metrics = {kind: kind() for kind in (PointingGame, EnergyPointingGame, MaskIoU)}
    for trial in range(400):
        saliency = rng.random((80, 100))
        for metric in metrics.values():
            metric.update(saliency, REGION, key=str(trial))
    energy = metrics[EnergyPointingGame].summary()
    # The share of the area. A map's share has a standard deviation of sqrt(1600 * 6400 / 8000 / 3) / 8000 = 0.0026.
    assert energy.mean == pytest.approx(0.2, abs=0.0005)
    assert 0.0001 < energy.high - energy.low < 0.001
    # 40 x 40, four sides of 14 x 40, and four quarters of an open disc of radius 15, without its axes.
    quarter = sum(dx * dx + dy * dy < 225 for dx in range(1, 16) for dy in range(1, 16))
    share = (1600 + 4 * 14 * 40 + 4 * quarter) / 8000
    assert metrics[PointingGame].summary().mean == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / 400))
    # (1 - t) of all pixels are left: the union is largest, and so is the quotient, without a threshold.
    assert metrics[MaskIoU].best_threshold() == 0.0
    assert metrics[MaskIoU].summary().mean == pytest.approx(0.2, abs=1e-12)


def test_parts_of_a_map_that_are_no_numbers_count_as_zero():
    saliency = REGION.astype(float)
    clean = saliency.copy()
    saliency[:10] = np.nan
    for kind in METRICS:
        truth = BOX if kind in OF_BOXES else REGION
        np.testing.assert_array_equal(kind().measure(saliency, truth), kind().measure(clean, truth))


def test_min_max():
    np.testing.assert_allclose(min_max(np.array([[2.0, 4.0, np.nan]])), [[0.5, 1.0, 0.0]])
    np.testing.assert_array_equal(min_max(np.full((2, 3), 0.7)), np.zeros((2, 3)))
    assert min_max(np.array([[0, 255]], np.uint8)).tolist() == [[0.0, 1.0]]


# Pointing


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


# Energy


def test_energy_is_a_share_of_the_sum():
    saliency = np.array([[0.1, 0.2, 0.3], [0.0, 0.4, 1.0]])
    assert EnergyPointingGame().measure(saliency, boxes_region([[1, 0, 3, 1]], 2, 3)) == pytest.approx(0.25)
    assert EnergyPointingGame().measure(saliency, np.zeros((2, 3), bool)) == 0.0


def test_sums_of_large_maps_are_exact():
    saliency = np.full((2000, 3000), 0.1, np.float32)
    found = EnergyPointingGame().measure(saliency, boxes_region([[0, 0, 1500, 2000]], 2000, 3000))
    assert found == pytest.approx(0.5, abs=1e-12)


# Boxes


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 14),
    levels=st.sampled_from([2, 4, 11, 21, 256]),
    zeros=st.sampled_from([0.0, 0.5, 0.8]),
    seed=st.integers(0, 10_000),
)
def test_boxes_are_those_of_a_flood(height, width, levels, zeros, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, levels, (height, width)) * (rng.random((height, width)) >= zeros)
    saliency = (numbers / (levels - 1)).astype(np.float32)
    found = list(largest_boxes(saliency, THRESHOLDS))
    if numbers.min() == numbers.max():
        assert found == [None] * 20
        return
    # Where a value is the threshold itself only rounding says on which side it is: not so, where they go to 0 and 1.
    spread = int(numbers.max() - numbers.min())
    exact = [k for k in range(20) if spread == levels - 1 or not (20 * (numbers - numbers.min()) == k * spread).any()]
    assert [found[k] for k in exact] == [box_by_hand(numbers, k) for k in exact]
    assert found[0] == (0, 0, width, height)
    boxes = np.round(rng.uniform(-3, 16, (3, 4)) * 4) / 4
    clipped = np.clip(boxes, 0, [width, height, width, height])
    expected = [max(iou_by_hand(box, truth) for truth in clipped) >= 0.5 for box in found]
    np.testing.assert_array_equal(MaxBoxAcc().measure(saliency, boxes), expected)
    singles = [CorLoc(threshold).measure(saliency, boxes) for threshold in THRESHOLDS]
    np.testing.assert_array_equal(singles, expected)
    parts = list(part_boxes(saliency, THRESHOLDS))
    for k in exact:
        wanted = [
            (min(x for _, x in part), min(y for y, _ in part), max(x for _, x in part) + 1, max(y for y, _ in part) + 1)
            for part in flooded(20 * (numbers - numbers.min()) >= k * spread)
        ]
        assert sorted(map(tuple, parts[k].tolist())) == sorted(wanted)
    best = [max(iou_by_hand(box, truth) for box in found.tolist() for truth in clipped) for found in parts]
    wanted = [value >= iou for iou in (0.3, 0.5, 0.7) for value in best]
    np.testing.assert_array_equal(MaxBoxAccV2(THRESHOLDS).measure(saliency, boxes), wanted)


def test_boxes_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(12)
    for sigma in (2, 6, 15):
        noise = cv2.GaussianBlur(rng.random((375, 500)), (0, 0), sigma)
        stored = np.round(min_max(noise) * 255).astype(np.uint8)
        boxes = list(largest_boxes(stored / np.float32(255), THRESHOLDS))
        for k, found in enumerate(boxes):
            mask = (20 * stored.astype(int) >= k * 255).astype(np.uint8)
            count, _, parts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            areas = parts[1:, cv2.CC_STAT_AREA]
            x, y, w, h = parts[1 + areas.argmax(), :4]
            if (areas == areas.max()).sum() == 1:
                assert found == (x, y, x + w, y + h)
            assert count > 1


def test_parts_touch_at_corners_and_the_first_of_equal_ones_counts():
    saliency = np.array(
        [
            [0, 0, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [1, 0, 1, 0, 0, 1],
            [1, 0, 0, 0, 0, 0],
        ]
    )
    assert list(largest_boxes(saliency, [0.5])) == [(3, 0, 6, 3)]


def test_a_ring_counts_by_its_pixels():
    saliency = np.zeros((20, 40))
    saliency[2:12, 2:12] = 1
    saliency[3:11, 3:11] = 0  # 36 pixels, around 64 others
    saliency[5:12, 20:26] = 1  # 42 pixels
    assert list(largest_boxes(saliency, [0.5])) == [(20, 5, 26, 12)]


def test_a_value_of_eight_bits_reaches_its_own_threshold():
    # k / 255 is a fifth, two, three or four fifths for these; one less is not enough.
    for fifths, k in enumerate((51, 102, 153, 204), start=1):
        stored = np.array([[0, k - 1, k, 255]], np.uint8)
        for saliency in (stored / 255, stored / np.float32(255), stored):
            assert list(largest_boxes(saliency, [fifths / 5])) == [(2, 0, 4, 1)]


@pytest.mark.parametrize(
    ("box", "iou"),
    [
        ([0, 0, 4, 4], 1.0),
        ([2, 0, 6, 4], 1 / 3),
        ([0, 0, 4, 2], 0.5),
        ([0, 0, 4, 1.99], 0.4975),
        ([4, 0, 8, 4], 0.0),
        ([9, 9, 8, 8], 0.0),
        ([1, 1, 1, 3], 0.0),
        ([0.5, 0.5, 4.5, 4.5], 3.5**2 / (32 - 3.5**2)),
    ],
)
def test_intersection_over_union(box, iou):
    assert box_iou(np.array([0, 0, 4, 4]), np.array([box])) == pytest.approx(np.array([[iou]]), abs=1e-12)
    saliency = np.zeros((8, 10))
    saliency[:4, :4] = 1
    assert CorLoc().measure(saliency, np.array([box])) == float(iou >= 0.5)
    assert CorLoc(iou=0.3).measure(saliency, np.array([box])) == float(iou >= 0.3)


def test_any_of_the_boxes_will_do():
    saliency = np.zeros((8, 10))
    saliency[:4, :4] = 1
    assert CorLoc().measure(saliency, [[5, 5, 9, 8], [0, 0, 4, 4]]) == 1.0
    assert CorLoc().measure(saliency, [[0, 0, 10, 8]]) == 0.0
    assert CorLoc().measure(saliency, np.empty((0, 4))) == 0.0
    # Beyond the border nothing can be found.
    assert CorLoc().measure(saliency, [[-9, -9, 4, 4]]) == 1.0


def test_the_best_threshold_is_common_to_all_maps():
    # Each map is right at a threshold of its own; two of them share one.
    low, high = np.full((10, 10), 0.3), np.zeros((10, 10))
    low[0, 0], low[5:, 5:] = 0.0, 0.9  # the quarter from 0.35 on; nearly all up to 0.3
    low[5:, 5] = 1.0
    high[2:8, 2:8], high[4:6, 4:6] = 0.6, 1.0
    quarter, middle, dot = [[5, 5, 10, 10]], [[2, 2, 8, 8]], [[4, 4, 6, 6]]
    metric = MaxBoxAcc()
    for index, (saliency, boxes) in enumerate([(low, quarter), (high, middle), (high, dot)]):
        metric.update(saliency, boxes, key=str(index))
    expected = [0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(3 * metric.means()[0], expected, atol=1e-12)
    assert metric.best_threshold() == 0.35
    assert (metric.n, metric.summary().mean) == (3, pytest.approx(2 / 3))
    assert metric.replicates().shape == (1001,)


def test_each_overlap_has_its_own_best_threshold():
    metric = MaxBoxAccV2([0.2, 0.8])
    metric.add(np.array([1, 0, 0, 1, 0, 1]), key="a")  # at an overlap of 0.3 with both thresholds, then 0.5, then 0.7
    metric.add(np.array([1, 0, 1, 0, 0, 0]), key="b")
    assert metric.summary().mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert metric.best_threshold() == 0.2


def test_thresholds_and_overlaps_are_options():
    saliency = np.linspace(0, 1, 100).reshape(1, 100) * np.ones((10, 1))
    boxes = [[60, 0, 100, 10]]
    metric = MaxBoxAcc([0.0, 0.5, 0.6, 1.0], iou=0.9)
    assert metric.update(saliency, boxes, key="a").tolist() == [0.0, 0.0, 1.0, 0.0]
    assert metric.best_threshold() == 0.6
    masks = MaskIoU([0.5, 0.6])
    np.testing.assert_allclose(masks.update(saliency, boxes_region(boxes, 10, 100), key="a"), [0.8, 1.0])
    assert (masks.best_threshold(), masks.summary().mean) == (0.6, 1.0)


def test_masks_at_all_thresholds():
    rng = np.random.default_rng(13)
    numbers, region = rng.integers(0, 21, (30, 40)), rng.random((30, 40)) < 0.3
    numbers[0, :2] = 0, 20
    expected = [((numbers >= k) & region).sum() / ((numbers >= k) | region).sum() for k in range(20)]
    np.testing.assert_allclose(MaskIoU().measure(numbers / 20, region), expected, rtol=1e-15)
    # A map need not go from 0 to 1.
    np.testing.assert_allclose(MaskIoU().measure(0.25 + numbers / 64, region)[::5], expected[::5], rtol=1e-15)
    np.testing.assert_array_equal(MaskIoU().measure(numbers, np.zeros((30, 40), bool)), [0.0] * 20)


# Pixels


def precision_by_hand(values, inside):
    """Return the average precision from its definition, threshold by threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        taken = [own for value, own in zip(values, inside, strict=True) if value >= threshold]
        recall = sum(taken) / sum(inside)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_the_average_precision_of_pixels(levels):
    rng = np.random.default_rng(16)
    numbers, region = rng.integers(0, levels, (12, 15)), rng.random((12, 15)) < 0.3
    ignored = rng.random((12, 15)) < 0.2
    assert PxAP().measure(numbers, region) == pytest.approx(precision_by_hand(numbers.ravel(), region.ravel()))
    expected = precision_by_hand(numbers[~ignored], region[~ignored])
    assert PxAP().measure(numbers, region, ignored) == pytest.approx(expected)
    # No change of contrast moves it.
    assert PxAP().measure((numbers / levels) ** 3, region) == PxAP().measure(numbers, region)
    metrics = pytest.importorskip("sklearn.metrics")
    assert PxAP().measure(numbers, region) == pytest.approx(
        metrics.average_precision_score(region.ravel(), numbers.ravel())
    )


def test_pixels_of_known_precision():
    assert PxAP().measure(REGION, REGION) == 1.0
    assert PxAP().measure(~REGION, REGION) == pytest.approx(REGION.mean())
    assert PxAP().measure(np.ones((80, 100)), REGION) == pytest.approx(REGION.mean())
    assert PxAP().measure(REGION, np.zeros((80, 100), bool)) == 0.0


def test_pixels_of_all_maps_are_pooled():
    rng = np.random.default_rng(17)
    metric = PooledPxAP(interval=0.05)
    values, inside = [], []
    for index, shape in enumerate([(20, 30), (40, 10), (15, 15)]):
        numbers, region = rng.integers(0, 21, shape), rng.random(shape) < 0.1 * (index + 1)
        numbers[0, :2] = 0, 20  # from 0 to 1 in steps of the interval
        counts = metric.update(numbers, region, key=str(index))
        assert counts.sum() == numbers.size
        assert counts[:21].sum() == region.sum()
        values += numbers.ravel().tolist()
        inside += region.ravel().tolist()
    assert metric.summary().mean == pytest.approx(precision_by_hand(values, inside))


# All of them


@pytest.mark.parametrize("kind", METRICS)
def test_parts_merge_and_equal_runs_do_not_differ(kind):
    rng = np.random.default_rng(14)
    items = []
    for index in range(24):
        x, y = rng.integers(0, 60, 2)
        box = np.array([[x, y, x + 30, y + 20]])
        shift = np.tile(rng.integers(-24, 25, 2), 2) * (rng.random() < 0.7)
        saliency = boxes_region(box + shift, 80, 100) + 0.4 * rng.random((80, 100))
        truth = box if kind in OF_BOXES else boxes_region(box, 80, 100)
        items.append(((saliency, truth), {"key": f"{index % 9}.jpg", "label": str(index % 3)}))
    whole, first, second = kind(), kind(), kind()
    for index, (given_, names) in enumerate(items):
        whole.update(*given_, **names)
        (first if index < 10 else second).update(*given_, **names)
    merged = first.merge(second)
    assert merged.n == whole.n == 24
    np.testing.assert_allclose(merged.replicates(), whole.replicates(), atol=1e-12)
    summary = whole.summary()
    assert summary.low <= summary.mean <= summary.high
    assert 0 < summary.mean < 1
    assert summary.high > summary.low
    found = whole.difference(merged)
    np.testing.assert_allclose([found.mean, found.low, found.high], 0, atol=1e-12)
    assert np.isnan(kind().summary().mean)
    assert kind.curve == (np.ndim(whole.measure(*items[0][0])) == 1)
    if hasattr(kind, "best_threshold"):
        assert np.isnan(kind().best_threshold())


def test_names():
    assert [(kind.name, kind.better, kind.per_class, kind.curve) for kind in METRICS] == [
        ("pointing_game", "higher", True, False),
        ("pointing_game_difficult", "higher", True, False),
        ("energy_pointing_game", "higher", False, False),
        ("max_box_acc", "higher", False, True),
        ("corloc", "higher", False, False),
        ("mask_iou", "higher", False, True),
        ("max_box_acc_v2", "higher", False, True),
        ("pxap", "higher", False, False),
        ("pxap_pooled", "higher", False, True),
    ]


@pytest.mark.parametrize("kind", [PointingGame, EnergyPointingGame, MaskIoU, PxAP, PooledPxAP])
@pytest.mark.parametrize("region", [np.ones((80, 99), bool), np.ones((80, 100), np.uint8)])
def test_a_region_is_a_bool_for_each_pixel(kind, region):
    with pytest.raises(SessError, match="give a bool for each pixel"):
        kind().measure(np.ones((80, 100)), region)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointingGame(-1), "tolerance is -1: use 0 pixels or more"),
        (lambda: PointingGame(np.nan), "tolerance is nan"),
        (lambda: PointingGame(smooth=2), "smooth is 2: use a share of the longer side"),
        (lambda: PooledPxAP(0), "interval is 0: use more than 0"),
        (lambda: CorLoc(1.5), "threshold is 1.5: use a share"),
        (lambda: MaxBoxAcc([]), "use ascending ones in 0..1"),
        (lambda: MaxBoxAcc([0.5, 0.2]), "use ascending ones in 0..1"),
        (lambda: MaskIoU([0.5, 0.5]), "use ascending ones in 0..1"),
        (lambda: MaskIoU([0.5, 1.1]), "use ascending ones in 0..1"),
        (lambda: MaskIoU([-0.1, 0.5]), "use ascending ones in 0..1"),
    ],
)
def test_options_that_make_no_sense(make, message):
    with pytest.raises(SessError, match=message):
        make()


def test_boxes_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(SessError, match=r"^boxes of maps: needs scipy: install sess-ray\[evaluate\]$"):
        CorLoc().measure(point(5, 5) + point(50, 50), BOX)
