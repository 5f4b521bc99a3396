"""The boxes that maps draw, and how far two boxes agree, against a flood and cells counted one by one."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.metrics.localization import (
    box_iou,
    largest_boxes,
    min_max,
    part_boxes,
)
from sess_ray.metrics.thresholds import THRESHOLDS, CorLoc, MaxBoxAcc, MaxBoxAccV2
from tests.metrics.boxes import BOX, point

pytestmark = pytest.mark.filterwarnings("error")


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


@pytest.mark.slow
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


def test_boxes_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(SessError, match=r"^boxes of maps: needs scipy: install sess-ray\[evaluate\]$"):
        CorLoc().measure(point(5, 5) + point(50, 50), BOX)
