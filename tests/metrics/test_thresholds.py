"""Metrics over all thresholds of a map: boxes, masks, and the precision of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sess_ray.boxes import boxes_region
from sess_ray.metrics.thresholds import MaskIoU, MaxBoxAcc, MaxBoxAccV2, PooledPxAP, PxAP
from tests.metrics.boxes import REGION

pytestmark = pytest.mark.filterwarnings("error")


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
    # A replicate that draws none of the images has no precision: it is not the 0 at which the interval would begin.
    assert np.isnan(metric.replicates()).mean() == pytest.approx(math.exp(-3), abs=0.03)
    assert metric.summary().low > 0
