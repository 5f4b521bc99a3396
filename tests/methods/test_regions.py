"""Augmented Grad-CAM and extremal perturbation against literal versions; what holds of all of family R."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, methods
from sess_ray.methods import augmented, extremal
from tests import nets

TARGETS = torch.tensor([3, 0])


def turned_by_hand(image, angle, shift, y, x):
    """Return what is at (y, x) of an image turned about its centre by an angle, then shifted by (x, y); 0 outside."""
    side = len(image)
    centre = (side - 1) / 2
    dx, dy = x - shift[0] - centre, y - shift[1] - centre
    u = math.cos(angle) * dx + math.sin(angle) * dy + centre
    v = -math.sin(angle) * dx + math.cos(angle) * dy + centre
    left, top = math.floor(u), math.floor(v)
    taps = ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1))
    inside = ((i, j) for i, j in taps if 0 <= i < side and 0 <= j < side)
    return sum(image[i, j] * (1 - abs(v - i)) * (1 - abs(u - j)) for i, j in inside)


def test_reduction_is_turning_shifting_and_the_mean_of_cells():
    fine = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(1))
    angles = torch.tensor([[0.0, 0.4], [-0.3, 0.2]])
    shifts = torch.tensor([[[0.0, 0.0], [3.5, -2.0]], [[-6.0, 1.2], [0.5, 7.0]]])
    found = augmented.Reduction((5, 4), angles, shifts, 24)(fine)
    parts = (np.arange(4) + 0.5) / 4
    for n, s in np.ndindex(2, 2):
        image, angle, shift = fine[n].double().numpy(), float(angles[n, s]), shifts[n, s].tolist()
        for i, j in np.ndindex(5, 4):
            points = [((i + a) * 24 / 5 - 0.5, (j + b) * 24 / 4 - 0.5) for a in parts for b in parts]
            expected = np.mean([turned_by_hand(image, angle, shift, y, x) for y, x in points])
            assert float(found[n, s, i, j]) == pytest.approx(expected, abs=1e-5)


def test_turning_back_undoes_turning():
    points = augmented._pixels(24, torch.device("cpu"))
    angles, shifts = torch.tensor([0.4]), torch.tensor([[3.5, -2.0]])
    there = augmented._turned_back(points, angles, shifts, 24)
    back = augmented._turned(there[0], angles, shifts, 24)
    torch.testing.assert_close(back[0], points, atol=1e-4, rtol=0)


def test_augmented_grad_cam_of_one_copy_is_grad_cam():
    model, _ = nets.small()
    patches = nets.patches(2)
    tap = model.tap(patches)
    cams = methods.get("gradcam").function(tap.activations, tap.gradients(TARGETS))
    # Not normalised: of several copies, one with larger gradients counts more.
    for aggregation in ("mean", "max"):
        found = methods.get("augmented_gradcam").function(
            model, patches, TARGETS, generators=nets.generators(2), batch_size=3, samples=1, aggregation=aggregation
        )
        for one, cam in zip(found, cams, strict=True):
            torch.testing.assert_close(one, nets.up(cam), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_super_resolution_minimises_its_objective():
    generator = torch.Generator().manual_seed(2)
    truth = torch.zeros(1, 32, 32)
    truth[:, 8:20, 14:24] = 0.15
    angles = (torch.rand(1, 40, generator=generator) - 0.5) * (torch.arange(40) > 0)
    shifts = (torch.rand(1, 40, 2, generator=generator) * 20 - 10) * (torch.arange(40) > 0)[:, None]
    reduction = augmented.Reduction((6, 6), angles, shifts, (32, 32))
    cams = reduction(truth)

    def objective(fine):
        tv = fine.diff(dim=1).abs().sum() + fine.diff(dim=2).abs().sum()
        return float((reduction(fine) - cams).square().sum() + 1e-3 * tv + 1e-3 * fine.square().sum())

    values = [
        objective(augmented._super_resolved(cams, angles, shifts, (32, 32), steps, 1e-3, 1e-3))
        for steps in (1, 20, 60, 200)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.2 * values[0]
    found = augmented._super_resolved(cams, angles, shifts, (32, 32), 200, 1e-3, 1e-3)[0]
    assert found[truth[0] > 0].mean() > 5 * found[truth[0] == 0].mean()


def test_the_smooth_mask_is_the_smooth_maximum_of_its_bumps():
    smooth = extremal.SmoothMask(16, torch.device("cpu"))
    parameters = torch.rand(1, *smooth.cells, generator=torch.Generator().manual_seed(3))
    found = smooth(parameters)[0]
    assert found.shape == smooth.canvas == (63, 63)
    for y, x in ((0, 0), (20, 33), (31, 22), (62, 40)):
        values = []
        top, left = (place // 7 - smooth.margin for place in (y, x))
        for i in range(top - 4, top + 5):
            for j in range(left - 4, left + 5):
                inside = 0 <= i < 3 and 0 <= j < 3
                distance = math.hypot(y - 21 - 7 * i, x - 21 - 7 * j) / 21
                values.append(
                    float(parameters[0, i, j]) * math.exp(-2 * max(distance - 0.5, 0) ** 2) if inside else 0.0
                )
        weights = np.exp(20 * np.array(values))
        assert float(found[y, x]) == pytest.approx(float(np.dot(values, weights) / weights.sum()), abs=1e-5)


def test_the_smooth_maximum_has_the_gradient_of_its_numbers():
    smooth = extremal.SmoothMask(16, torch.device("cpu"))
    generator = torch.Generator().manual_seed(6)
    near = torch.rand(1, 81, 2, dtype=torch.float64, generator=generator).requires_grad_()
    weights = smooth.weights[[0, 17, 48]].double()
    assert torch.autograd.gradcheck(lambda value: extremal._SmoothMaximum.apply(value, weights), near)


def test_rounding_does_not_order_equal_values():
    generator = torch.Generator().manual_seed(7)
    levels = torch.randint(0, 9, (2, 300), generator=generator) / 10
    ramp = torch.arange(300.0)
    gradients = []
    for noise in (0, 1e-6):
        values = (levels + noise * torch.randn(2, 300, generator=generator)).requires_grad_()
        found = extremal.ascending(values)
        torch.testing.assert_close(found, levels.sort(dim=1).values, atol=1e-5, rtol=0)
        gradients += torch.autograd.grad((found * ramp).sum(), values)
    assert torch.equal(*gradients)


def test_a_mask_shows_a_level_of_the_blur_pyramid():
    patches = nets.patches(2)
    pyramid = extremal.blur_pyramid(patches)
    torch.testing.assert_close(pyramid[:, -1], patches)
    # The widest Gaussian, sigma 20, as one two-dimensional sum at one pixel; borders are repeated.
    offsets = np.arange(-80, 81)
    kernel = np.exp(-(offsets**2) / 800)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    rows, columns = (np.clip(at + offsets, 0, 31) for at in (5, 29))
    expected = (patches[1, 2].numpy()[np.ix_(rows, columns)] * kernel).sum()
    assert float(pyramid[1, 0, 2, 5, 29]) == pytest.approx(expected, abs=1e-5)
    for value, expected_level in (
        (1.0, pyramid[:, 7]),
        (0.0, pyramid[:, 0]),
        (2.5 / 7, (pyramid[:, 2] + pyramid[:, 3]) / 2),
    ):
        seen = extremal.perturbed(pyramid, torch.full((2, 3, 32, 32), value))
        torch.testing.assert_close(seen[:, 1], expected_level, atol=1e-5, rtol=1e-5)


def test_the_last_smoothing_sees_zeros_around_the_map():
    maps = torch.zeros(1, 32, 32)
    maps[0, 2, 30] = 1
    found = extremal.smoothed(maps, 0.09 * 32)[0]
    offsets = np.arange(-12, 13)  # ceil(4 sigma) on each side
    kernel = np.exp(-(offsets**2) / (2 * 2.88**2))
    kernel /= kernel.sum()
    assert float(found[5, 28]) == pytest.approx(kernel[12 + 3] * kernel[12 - 2], rel=1e-5)
    assert float(found.sum()) == pytest.approx(kernel[10:].sum() * kernel[:14].sum(), rel=1e-5)
    assert extremal.smoothed(maps, 0.0) is maps


def test_extremal_perturbation_with_the_settings_of_its_benchmark():
    model, _ = nets.small(scale=15)
    options = {"batch_size": 4, "areas": (0.1,), "steps": 3}
    found = extremal.extremal_perturbation(
        model, nets.patches(2), TARGETS, border="zero", canvas="cropped", smooth=0.09, **options
    )
    masks = extremal._masks(model, nets.patches(2), TARGETS, (0.1,), 3, "zero", "cropped").sum(1)
    torch.testing.assert_close(found, extremal.smoothed(masks, 0.09 * 32))
    other = extremal.extremal_perturbation(model, nets.patches(2), TARGETS, **options)
    assert (found - other).abs().max() > 0.01


class Checkered(nn.Module):
    """Class 0 is contrast in the middle rows at the left and, the patch being mirrored half the time, at the right."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        band = x[:, 0, 20:40]
        contrast = (band.diff(dim=2).abs()).mean((1, 2)) * 5 * self.scale
        return torch.stack([contrast, -contrast], 1)


@pytest.mark.slow
def test_extremal_perturbation_shows_what_the_class_is_made_of():
    module = Checkered()
    model = sess_ray.Model(module, "checkered", "", "NCHW", 2, 64, (0.5,) * 3, (0.5,) * 3)
    patch = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1).expand(1, 3, 64, 64).contiguous()
    found = extremal._masks(model, patch, torch.tensor([0]), (0.1,), 400)[0, 0]
    assert found[20:40].mean() > 3 * found[:10].mean()
    assert found[20:40].mean() > 3 * found[50:].mean()
    # The area is that of the canvas of 63 + 42 pixels a side, of which the patch is the middle.
    assert float(found.sum()) / 105**2 == pytest.approx(0.1, abs=0.06)


class Corner(nn.Module):
    """Class 0 is the brightness of the upper left corner, and so of the right one when the patch is mirrored."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((), 5.0))

    def forward(self, x):
        brightness = x[:, 0, :28, :28].mean((1, 2)) * self.scale
        return torch.stack([brightness, -brightness], 1)


@pytest.mark.slow
def test_extremal_masks_sit_in_the_corners_and_have_their_areas():
    model = sess_ray.Model(Corner(), "corner", "", "NCHW", 2, 64, (0.5,) * 3, (0.5,) * 3)
    patch = torch.full((1, 3, 64, 64), -1.0)
    patch[..., :28, :28] = patch[..., :28, 36:] = 1
    areas = (0.1, 0.2)
    masks = extremal._masks(model, patch, torch.tensor([0]), areas, 300)[0]
    for mask, area in zip(masks, areas, strict=True):
        assert mask[:28].mean() > 1.4 * mask[36:].mean()
        assert float(mask.sum()) / 105**2 == pytest.approx(area, abs=0.04)  # the constraint is a soft one
    # Fewer masks at a time than areas: the same sum of masks.
    whole, split = (
        extremal.extremal_perturbation(model, patch, torch.tensor([0]), batch_size=size, areas=areas, steps=30)
        for size in (8, 1)
    )
    torch.testing.assert_close(whole, split, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xrai", {"steps": 20}),
        ("augmented_gradcam", {"samples": 20, "steps": 200}),
        pytest.param("extremal_perturbation", {"steps": 30}, marks=pytest.mark.slow),
    ],
)
def test_long_runs_do_not_depend_on_the_batch(name, options):
    model, _ = nets.small(scale=15)
    patches, targets = nets.patches(3), torch.tensor([3, 0, 1])
    method = methods.get(name)

    def found(part, batch_size):
        offers = {"batch_size": batch_size, "generators": nets.generators(3)[part]}
        given = {name: offers[name] for name in method.given}
        return method.function(model, patches[part], targets[part], **given, **options)

    together = found(slice(None), 64)
    alone = torch.cat([found(slice(i, i + 1), 3) for i in range(3)])
    assert together.amax() > 0
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_super_resolved_map_of_a_real_model_owes_nothing_to_its_neighbours(lite0, photographs):
    model = lite0.prepared(torch.device("cpu"), "fp32")
    crops = [photographs[name][:224, :224].astype(np.float32) for name in ("chelsea.png", "astronaut.png")]
    patches = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 128 - 1

    def found(part):
        generators = nets.generators(2)[part]
        return methods.get("augmented_gradcam").function(
            model, patches[part], torch.tensor([281, 652])[part], generators=generators, batch_size=16, samples=12
        )

    torch.testing.assert_close(found(slice(0, 1)), found(slice(0, 2))[:1], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xrai", {"steps": 4}),
        ("augmented_gradcam", {"samples": 8, "steps": 40}),
        pytest.param("extremal_perturbation", {"steps": 60, "areas": (0.1,)}, marks=pytest.mark.slow),
    ],
)
def test_the_cat_is_lit(name, options, lite0, photographs):
    pixels = photographs["chelsea.png"]  # the face fills the middle; wall and blanket are at the sides
    sess = SESS(lite0, name, num_scales=None, device="cpu", method_options=options)
    [[found]] = sess.explain([pixels], [[281]])
    face = found.saliency[60:260, 110:330]
    assert face.mean() > 1.2 * (found.saliency.sum() - face.sum()) / (found.saliency.size - face.size)
