from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray.engine import fusion
from sess_ray.engine.fusion import FUSIONS, fuse, keep, min_max
from sess_ray.windows import Plan, Scale, sess_plan, whole_plan
from tests import literal


def random_maps(plan, cells, seed):
    """Maps with zero cells, as ReLU leaves them, and one constant map."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(plan.num_patches, cells, cells, dtype=torch.float64, generator=generator).relu()
    maps[0] = 0.5
    scores = torch.rand(plan.num_patches, dtype=torch.float64, generator=generator)
    return maps, scores


def literal_fade(plan, y, x, scaled):
    """What a window counts at each pixel of the image, from the distance to the nearest of its inner borders."""
    weight = np.ones((plan.height, plan.width))
    for row in range(plan.height):
        for column in range(plan.width):
            for pixel, start, long, length, side in (
                (row, y, scaled[0], plan.height, literal.both(plan.window)[0]),
                (column, x, scaled[1], plan.width, literal.both(plan.window)[1]),
            ):
                centre = (pixel + 0.5) * long / length
                inner = []
                if start > 0:
                    inner.append(centre - start)
                if start + side < long:
                    inner.append(start + side - centre)
                nearest = min(inner, default=np.inf)
                weight[row, column] *= min(1, max(0.001, nearest / (plan.fade * side)))
    return torch.from_numpy(weight)


def literal_fusion(plan, maps, scores, kept, kind):
    size = plan.height, plan.width
    window = literal.both(plan.window)
    ones = torch.ones(window, dtype=torch.float64)
    masks, coverage = [], []
    for index, (i, y, x) in enumerate(plan.positions()):
        scaled = plan.scales[i].height, plan.scales[i].width
        fade = literal_fade(plan, y, x, scaled) if plan.fade else 1
        coverage.append(literal.calibrated(ones, y, x, scaled, size) * fade)
        if kept[index]:
            up = F.interpolate(maps[index][None, None], size=window, mode="bilinear")[0, 0]
            spread = up.max() - up.min()
            value = (up - up.min()) / spread if spread > 1e-12 else torch.zeros_like(up)
            masks.append(literal.calibrated(value * scores[index] / scores.max(), y, x, scaled, size) * fade)
    return literal.fused(masks, coverage, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reference", "seamless"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 220),
    width=st.integers(1, 220),
    window=st.sampled_from([32, 48, 60]),
    num_scales=st.integers(1, 4),
    step=st.sampled_from([16, 32, 60]),
    ratio=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    cells=st.sampled_from([4, 7, 13]),
    seed=st.integers(0, 99),
)
def test_fusion_is_that_of_full_size_masks(kind, height, width, window, num_scales, step, ratio, cells, seed):
    if max(height, width) > 12 * min(height, width):
        return
    plan = sess_plan(height, width, window, num_scales, step)
    maps, scores = random_maps(plan, cells, seed)
    kept = keep(scores, ratio)
    expected = literal_fusion(plan, maps, scores, kept, kind)
    found = fuse(plan, maps[kept], scores, kept, fusion=kind, normalize=False, smooth=False)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["reference", "seamless"])
@pytest.mark.parametrize(
    ("height", "width", "window"),
    [
        (375, 500, 224),
        (150, 900, 224),
        (224, 224, 224),
        (448, 672, 224),
        (100, 37, 224),
        (375, 500, (256, 128)),
        (100, 37, (160, 224)),
    ],
)
def test_fusion_at_the_size_of_photographs(kind, height, width, window):
    plan = sess_plan(height, width, window, 3)
    maps, scores = random_maps(plan, 7, seed=5)
    kept = keep(scores, 0.5)
    expected = literal_fusion(plan, maps, scores, kept, kind)
    found = fuse(plan, maps[kept], scores, kept, fusion=kind, normalize=False, smooth=False)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("fade", [0.1, 0.5])
@pytest.mark.parametrize(
    ("height", "width", "window", "step"),
    [(40, 60, 32, 32), (32, 80, 32, 32), (33, 47, 32, 16), (33, 47, (24, 40), None), (50, 30, (24, 40), 16)],
)
def test_windows_fade_towards_their_inner_borders(fade, height, width, window, step):
    plan = replace(sess_plan(height, width, window, 2, step), fade=fade)
    maps, scores = random_maps(plan, 7, seed=11)
    kept = keep(scores, 0.5)
    found = fuse(plan, maps[kept], scores, kept, normalize=False, smooth=False)
    expected = literal_fusion(plan, maps, scores, kept, "seamless")
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    hard = fuse(replace(plan, fade=0.0), maps[kept], scores, kept, normalize=False, smooth=False)
    assert (found - hard).abs().max() > 0.01


def test_what_all_windows_say_is_what_fading_ones_say():
    scale = Scale(448, 448, (0, 224), (0, 224))  # at 224 they only touch: pixel 10 of 21 is half of each
    for size in (21, 448, 500):
        plan = Plan(size, size, 224, (scale,), fade=0.25)
        [found] = FUSIONS["seamless"](plan, torch.ones(1, 4, 7, 7), torch.arange(4)[None])(0, size)
        torch.testing.assert_close(found, torch.ones(size, size), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["reference", "seamless"])
def test_gaps_between_windows_are_zeros(kind):
    plan = sess_plan(32, 200, 32, 1, 60)  # pixels 32 to 59 and 92 to 119 are in no window
    maps, scores = random_maps(plan, 4, seed=10)
    kept = keep(scores, 0.0)
    found = fuse(plan, maps, scores, kept, fusion=kind, normalize=False, smooth=False)
    torch.testing.assert_close(found, literal_fusion(plan, maps, scores, kept, kind), atol=1e-12, rtol=0)
    assert (found[:, 32:60] == 0).all()
    assert (found[:, 60:92] > 0).any()


@pytest.mark.parametrize(("num_scales", "lowest"), [(1, 0.25), (12, 0.821194)])
def test_all_ones_show_the_seams_of_the_release_and_none_of_ours(num_scales, lowest):
    plan = sess_plan(500, 500, 224, num_scales, 224)
    if num_scales == 1:  # a lone window has no seams: four of them at the scale twice as large
        scales = (Scale(448, 448, (0, 224), (0, 224)),)
        plan = Plan(500, 500, 224, scales)
    ones = torch.ones(plan.num_patches, 7, 7, dtype=torch.float64)
    kept = torch.arange(plan.num_patches)[None]
    [reference] = FUSIONS["reference"](plan, ones[None], kept)(0, 500)
    [seamless] = FUSIONS["seamless"](plan, ones[None], kept)(0, 500)
    # Where four windows meet, a pixel half-way takes a quarter of each, and each counts as one.
    assert reference.min().item() == pytest.approx(lowest, abs=1e-6)
    torch.testing.assert_close(seamless, torch.ones(500, 500, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["reference", "seamless"])
@pytest.mark.parametrize("smooth", [False, True])
def test_bands_of_rows_change_nothing(monkeypatch, kind, smooth):
    plan = sess_plan(83, 131, 32, 3, 32)
    maps, scores = random_maps(plan, 5, seed=1)
    kept = keep(scores, 0.3)
    whole = fuse(plan, maps[kept], scores, kept, fusion=kind, smooth=smooth)
    monkeypatch.setattr(fusion, "BAND_PIXELS", 131 * 7)
    torch.testing.assert_close(
        fuse(plan, maps[kept], scores, kept, fusion=kind, smooth=smooth), whole, atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("shape", [(40, 60), (11, 7), (6, 30)])
def test_smoothing_is_the_two_dimensional_sum(shape):
    plan = whole_plan(*shape, 32)
    maps, scores = random_maps(plan, 6, seed=2)
    maps[0] = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kept = keep(scores, 0.0)
    plain = fuse(plan, maps[kept], scores, kept, normalize=False, smooth=False).numpy()
    found = fuse(plan, maps[kept], scores, kept, normalize=False, smooth=True).numpy()
    np.testing.assert_allclose(found, literal.smoothed(plain), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (5, 200)])
def test_images_smaller_than_the_kernel_are_smoothed_too(shape):
    plan = sess_plan(*shape, 16, 2, 16)
    maps, scores = random_maps(plan, 4, seed=4)
    found = fuse(plan, maps, scores, keep(scores, 0.0))
    assert found.shape == shape
    assert found.isfinite().all()


@pytest.mark.parametrize("cells", [1, 2, 7, 13, 32, 40])
def test_min_max_is_that_of_the_up_sampled_map(cells):
    maps = torch.randn(20, cells, cells, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    up = F.interpolate(min_max(maps, 32)[:, None], size=(32, 32), mode="bilinear")[:, 0].flatten(1)
    if cells == 1:
        assert (up == 0).all()
    else:
        torch.testing.assert_close(up.amin(1), torch.zeros(20, dtype=torch.float64), atol=1e-12, rtol=0)
        torch.testing.assert_close(up.amax(1), torch.ones(20, dtype=torch.float64), atol=1e-12, rtol=0)


def test_constant_and_infinite_maps_add_nothing_and_blank_nothing():
    plan = sess_plan(64, 64, 32, 2, 32)
    maps, scores = random_maps(plan, 4, seed=7)
    kept = torch.ones(plan.num_patches, dtype=torch.bool)
    clean = fuse(plan, maps[kept], scores, kept, normalize=False)  # map 0 is constant
    maps[0] = torch.inf
    assert torch.equal(fuse(plan, maps[kept], scores, kept, normalize=False), clean)
    assert clean.isfinite().all()
    assert (clean > 0).any()
    dead = fuse(plan, torch.zeros_like(maps), scores, kept)
    assert torch.equal(dead, torch.zeros(64, 64, dtype=torch.float64))


@pytest.mark.parametrize(
    ("count", "ratio", "kept"), [(122, 0.9, 13), (303, 0.99, 4), (122, 0.0, 122), (5, 1.0, 1), (1, 0.9, 1)]
)
def test_the_number_of_patches_that_survive(count, ratio, kept):
    scores = torch.rand(count, generator=torch.Generator().manual_seed(8))
    mask = keep(scores, ratio)
    assert mask.sum() == kept
    assert scores[mask].min() >= scores[~mask].max() if (~mask).any() else True


def test_of_equal_scores_the_later_ones_stay():
    assert keep(torch.tensor([0.5, 0.5, 0.5, 0.5]), 0.5).tolist() == [False, False, True, True]


def test_scores_of_zero_give_a_map_of_zeros():
    plan = sess_plan(64, 64, 32, 2, 32)
    maps, scores = random_maps(plan, 4, seed=9)
    found = fuse(plan, maps, torch.zeros_like(scores), keep(scores, 0.0))
    assert torch.equal(found, torch.zeros_like(found))
