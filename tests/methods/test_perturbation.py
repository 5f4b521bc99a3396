"""Family P against literal float64 versions, one patch and one mask at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sess_ray import SESS, methods
from sess_ray.blur import blurred
from sess_ray.methods.perturbation import BLUR, RandomMasks
from tests import literal, nets

TARGETS = torch.tensor([3, 0, 4])
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def run(name, model, patches, targets=TARGETS, same_as=(0, 1, 2), **options):
    method, tap = methods.get(name), model.tap(patches)
    offers = {"activations": tap.activations, "gradients": tap.gradients(targets), "same_as": torch.tensor(same_as)}
    given = {key: value for key, value in offers.items() if key in method.given}
    return method.function(model, patches, targets, **given, **options).double()


@pytest.fixture(scope="module")
def nets_and_patches():
    model, module = nets.small(channels=10, dead=4)
    return model, module, nets.patches(3)


def score_cam(module, patch, target, scores):
    """Return ReLU(sum_k w_k up(A_k)) with w = scores(masks of the live channels)."""
    activations, _ = nets.activations_and_gradients(module, "third", patch, target)
    ups = [nets.up(one) for one in activations]
    live = [value for value in ups if value.max() - value.min() > 1e-9]
    weights = scores([nets.min_max(value) for value in live])
    return sum(weight * value for weight, value in zip(weights, live, strict=True)).relu(), len(live)


def test_score_cam(nets_and_patches):
    model, module, patches = nets_and_patches
    plain = run("scorecam", model, patches, batch_size=4)
    paper = run("scorecam", model, patches, batch_size=7, subtract_baseline=True, softmax=True)
    relative = run("scorecam", model, patches, batch_size=7, subtract_baseline=True)
    for patch, target, first, second, third in zip(patches, TARGETS, plain, paper, relative, strict=True):

        def scores(masks, patch=patch, target=target):
            return torch.stack([nets.probability(module, patch * mask, target) for mask in masks])

        baseline = nets.probability(module, torch.zeros_like(patch), target)
        expected, live = score_cam(module, patch, target, scores)
        assert live == 9
        torch.testing.assert_close(first, expected, **CLOSE)
        expected, _ = score_cam(module, patch, target, lambda masks, s=scores: s(masks).softmax(0))
        torch.testing.assert_close(second, expected, **CLOSE)
        expected, _ = score_cam(module, patch, target, lambda masks, s=scores, b=baseline: s(masks) - b)
        torch.testing.assert_close(third, expected, **CLOSE)


@pytest.mark.parametrize(
    ("aggregate", "noise", "subtract_baseline", "softmax"),
    [
        ("mean", "mask", False, True),
        ("max", "mask", True, False),
        ("max", "mask", True, True),
        ("mean", "input", False, False),
        ("max", "input", True, True),
    ],
)
def test_ss_cam(nets_and_patches, aggregate, noise, subtract_baseline, softmax):
    model, module, patches = nets_and_patches
    options = {"aggregate": aggregate, "noise": noise, "subtract_baseline": subtract_baseline, "softmax": softmax}
    options |= {"samples": 3, "std": 0.4, "batch_size": 5, "generators": nets.generators(3, seed=8)}
    found = run("sscam", model, patches, **options)
    for patch, target, generator, one in zip(patches, TARGETS, nets.generators(3, seed=8), found, strict=True):
        shape = (nets.SIDE, nets.SIDE) if noise == "mask" else (3, nets.SIDE, nets.SIDE)
        draws = [0.4 * torch.randn(shape, generator=generator).double() for _ in range(3)]

        def score(mask, draw, patch=patch, target=target):
            if noise == "mask":
                return nets.probability(module, patch * (mask + draw), target)
            return nets.probability(module, patch * mask + (patch.max() - patch.min()) * draw, target)

        def scores(masks, patch=patch, target=target, draws=draws, score=score):
            rows = [torch.stack([score(mask, draw) for draw in draws]) for mask in masks]
            values = torch.stack([row.mean() if aggregate == "mean" else row.max() for row in rows])
            if subtract_baseline:
                values = values - nets.probability(module, torch.zeros_like(patch), target)
            return values.softmax(0) if softmax else values

        expected, _ = score_cam(module, patch, target, scores)
        torch.testing.assert_close(one, expected, **CLOSE)


def test_ss_cam_without_noise_is_score_cam_with_a_softmax(nets_and_patches):
    model, _, patches = nets_and_patches
    found = run("sscam", model, patches, batch_size=64, generators=nets.generators(3), samples=2, std=0.0, softmax=True)
    torch.testing.assert_close(found, run("scorecam", model, patches, batch_size=64, softmax=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scorecam", {"subtract_baseline": True}),
        ("sscam", {"samples": 2, "softmax": False}),
        ("rise", {"masks": 21, "seed": 6}),
        ("smooth_gradcam++", {"samples": 3}),
        ("cameras", {"sizes": 2, "step": 20}),
    ],
)
def test_targets_of_a_patch_share_its_passes(nets_and_patches, name, options):
    model, _, patches = nets_and_patches
    patches, targets = patches[[1, 0, 0, 2, 0]], torch.tensor([3, 0, 4, 1, 2])
    passed = []

    def explained(same_as):
        offers = {"generators": [nets.generators(3)[row] for row in (1, 0, 0, 2, 0)], "batch_size": 4}
        given = {key: value for key, value in offers.items() if key in methods.get(name).given}
        passed.append(0)
        return run(name, model, patches, targets, same_as, **given, **options)

    def count(_, inputs):
        passed[-1] += len(inputs[0])

    handles = [network.register_forward_pre_hook(count) for network in (model.module, model.fused)]
    try:
        torch.testing.assert_close(explained([0, 1, 1, 3, 1]), explained([0, 1, 2, 3, 4]), atol=1e-6, rtol=1e-4)
    finally:
        for handle in handles:
            handle.remove()
    layer = 6 if name == "scorecam" else 5  # passes that do not count: for the layer, and Score-CAM's baseline
    shared, alone = (number - layer for number in passed)
    assert 5 * shared == 3 * alone > 0


def blurred_by_hand(patch):
    offsets = np.arange(-25, 26)
    kernel = np.exp(-(offsets**2) / (2 * 50.0**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    padded = np.pad(patch.double().numpy(), ((0, 0), (25, 25), (25, 25)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (51, 51), axis=(1, 2))
    return torch.from_numpy(np.einsum("chwij,ij->chw", windows, kernel))


def test_group_cam_with_groups_of_uneven_size(nets_and_patches):
    model, module, patches = nets_and_patches
    found = run("groupcam", model, patches, batch_size=3, groups=4)
    for patch, target, one in zip(patches, TARGETS, found, strict=True):
        blur = blurred_by_hand(patch)
        torch.testing.assert_close(blurred(patch[None], BLUR)[0].double(), blur, atol=1e-6, rtol=0)
        base = nets.probability(module, blur, target)
        activations, gradients = nets.activations_and_gradients(module, "third", patch, target)
        weighted = gradients.mean((1, 2))[:, None, None] * activations
        expected = torch.zeros(nets.SIDE, nets.SIDE, dtype=torch.float64)
        for group in ([0, 1, 2], [3, 4, 5], [6, 7], [8, 9]):
            value = nets.up(sum(weighted[k] for k in group).relu())
            if value.max() > value.min():
                mask = nets.min_max(value)
                gain = nets.probability(module, patch * mask + blur * (1 - mask), target) - base
                expected += max(gain, 0) * value
        torch.testing.assert_close(nets.up(one), expected, **CLOSE)


def group_cam(module, layer, patch, target, groups=32):
    """Group-CAM as its release has it, float32, a group at a time: a map of the patch's size after min-max."""
    kept = {}
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.update(a=out) or out)
    with torch.enable_grad():
        logit = module(patch[None].clone().requires_grad_())[0, target]
        (gradient,) = torch.autograd.grad(logit, kept["a"])
    handle.remove()
    weighted = gradient.mean((2, 3), keepdim=True) * kept["a"].detach()
    blur = blurred_by_hand(patch).float()
    with torch.no_grad():
        base = module(blur[None]).softmax(1)[0, target]
        total = torch.zeros(patch.shape[1:])
        for part in weighted.chunk(groups, 1):
            value = F.interpolate(part.sum(1, keepdim=True).relu(), size=patch.shape[1:], mode="bilinear")[0, 0]
            if value.max() > value.min():
                mask = nets.min_max(value)
                seen = patch * mask + blur * (1 - mask)
                total += (module(seen[None]).softmax(1)[0, target] - base).relu() * value
    return nets.min_max(total).double() if total.max() > total.min() else total.double()


@pytest.mark.slow
def test_group_cam_within_sess_is_the_release_within_sess(lite0, photographs, monkeypatch):
    monkeypatch.setattr(literal, "grad_cam", group_cam)
    pixels, settings = photographs["chelsea.png"], {"num_scales": 2, "fusion": "reference"}
    expected, _, kept = nets.literally(literal.sess, lite0, pixels, 281, step=224, ratio=0.6, **settings)
    sess = SESS(lite0, "groupcam", pre_filter_ratio=0.6, normalize=False, smooth=False, device="cpu", **settings)
    [[found]] = sess.explain([pixels], [[281]])
    assert set(np.flatnonzero(found.patches["kept"])) == kept
    assert found.saliency.max() > 0.1
    np.testing.assert_allclose(found.saliency, expected, atol=1e-4)


def enlarged_by_hand(grid, length):
    """Bilinear, half-pixel centres, the grid mirrored without repeating its border: loops over pixels."""
    cells = len(grid)
    mirrored = np.pad(grid, 1, mode="reflect")
    large = np.zeros((length, length))
    for y in range(length):
        for x in range(length):
            v, u = ((i + 0.5) * cells / length - 0.5 + 1 for i in (y, x))
            top, left = int(np.floor(v)), int(np.floor(u))
            a, b = v - top, u - left
            below, right = min(top + 1, cells + 1), min(left + 1, cells + 1)
            large[y, x] = (1 - a) * ((1 - b) * mirrored[top, left] + b * mirrored[top, right]) + a * (
                (1 - b) * mirrored[below, left] + b * mirrored[below, right]
            )
    return large


def test_rises_masks():
    masks = RandomMasks(2000, 8, 0.3, (30, 30), seed=4, device=torch.device("cpu"))
    whole = masks[0:2000]
    # The mean of 2,000 x 64 Bernoulli cells: three standard deviations.
    assert abs(whole.mean().item() - 0.3) < 3 * (0.3 * 0.7 / (2000 * 64)) ** 0.5
    assert torch.equal(masks[13:20], whole[13:20])
    for number in range(3):  # cells of 4 pixels, 9 of them: 36 pixels, of which 30 are seen
        large = enlarged_by_hand(masks.grids[number].numpy().astype(float), 36)
        y, x = masks.shifts[number].tolist()
        np.testing.assert_allclose(whole[number].numpy(), large[y : y + 30, x : x + 30], atol=1e-6)
    assert 0 < masks.shifts.max() < 4


def test_rise(nets_and_patches):
    model, module, patches = nets_and_patches
    options = {"masks": 21, "cells": 5, "probability": 0.4}
    found = run("rise", model, patches, batch_size=8, seed=6, **options)
    masks = RandomMasks(21, 5, 0.4, (nets.SIDE, nets.SIDE), 6, torch.device("cpu"))[0:21].double()
    for patch, target, one in zip(patches, TARGETS, found, strict=True):
        expected = sum(nets.probability(module, patch * mask, target) * mask for mask in masks) / (21 * 0.4)
        torch.testing.assert_close(one, expected, **CLOSE)
    torch.testing.assert_close(run("rise", model, patches, batch_size=5, seed=6, **options), found, **CLOSE)


def test_smooth_grad_cam_plus_plus(nets_and_patches):
    model, module, patches = nets_and_patches
    found = run("smooth_gradcam++", model, patches, generators=nets.generators(3, seed=2), samples=3, std=0.3)
    for patch, target, generator, one in zip(patches, TARGETS, nets.generators(3, seed=2), found, strict=True):
        clean, _ = nets.activations_and_gradients(module, "third", patch, target)
        powers = [torch.zeros_like(clean) for _ in range(3)]
        for _ in range(3):
            noise = nets.noise(generator)
            copy = patch + 0.3 * (patch.max() - patch.min()) * noise
            _, gradient = nets.activations_and_gradients(module, "third", copy, target)
            powers = [total + gradient**power / 3 for power, total in enumerate(powers, start=1)]
        denominator = 2 * powers[1] + clean.sum((1, 2), keepdim=True) * powers[2]
        alpha = powers[1] / torch.where(denominator == 0, 1.0, denominator)
        weights = (alpha * powers[0].relu()).sum((1, 2))
        torch.testing.assert_close(one, torch.einsum("k,kuv->uv", weights, clean).relu(), atol=1e-4, rtol=1e-3)


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus(nets_and_patches):
    model, _, patches = nets_and_patches
    tap = model.tap(patches)
    expected = methods.get("gradcam++").function(tap.activations, tap.gradients(TARGETS))
    found = run("smooth_gradcam++", model, patches, generators=nets.generators(3), samples=2, std=0.0)
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-4)


def test_cameras(nets_and_patches, monkeypatch):
    monkeypatch.setattr("sess_ray.methods.averaged.CHANNELS", 4)
    model, module, patches = nets_and_patches
    found = run("cameras", model, patches, batch_size=2, sizes=3, step=20)
    for patch, target, one in zip(patches, TARGETS, found, strict=True):
        sums = [torch.zeros(10, nets.SIDE, nets.SIDE, dtype=torch.float64) for _ in range(2)]
        for size in (32, 52, 72):
            resized = F.interpolate(patch[None].double(), size=(size, size), mode="bicubic", align_corners=False)[0]
            pair = nets.activations_and_gradients(module, "third", resized, target)
            sums = [total + torch.stack([nets.up(value) for value in maps]) / 3 for total, maps in zip(sums, pair)]  # noqa: B905
        torch.testing.assert_close(one, (sums[0] * sums[1]).sum(0).relu(), **CLOSE)
