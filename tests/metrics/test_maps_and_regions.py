"""All metrics of a map and a region: perfect maps, empty ones, random ones, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray import SessError
from sess_ray.boxes import boxes_region
from sess_ray.metrics.localization import (
    DifficultPointingGame,
    EnergyPointingGame,
    PointingGame,
)
from sess_ray.metrics.thresholds import CorLoc, MaskIoU, MaxBoxAcc, MaxBoxAccV2, PooledPxAP, PxAP
from tests.metrics.boxes import BOX, REGION

pytestmark = pytest.mark.filterwarnings("error")


METRICS = (
    *(PointingGame, DifficultPointingGame, EnergyPointingGame, MaxBoxAcc, CorLoc, MaskIoU),
    *(MaxBoxAccV2, PxAP, PooledPxAP),
)
OF_BOXES = (MaxBoxAcc, CorLoc, MaxBoxAccV2)


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


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", METRICS)
def test_replicates_without_maps_do_not_count(kind):
    metric = kind()
    for key in ("a", "b"):
        metric.update(REGION.astype(np.float32), BOX if kind in OF_BOXES else REGION, key=key)
    found = metric.summary()
    assert [found.low, found.high] == pytest.approx([found.mean, found.mean], rel=1e-12)


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
