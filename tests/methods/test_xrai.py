"""XRAI against literal loops and cases with a known answer."""

from __future__ import annotations

import numpy as np
import torch

from sess_ray import methods
from sess_ray.methods import xrai
from sess_ray.methods.gradients import attributions
from tests import nets

TARGETS = torch.tensor([3, 0])


def test_xrai_ranks_regions_as_a_literal_loop_does():
    generator = np.random.default_rng(5)
    attribution = generator.normal(size=(40, 40))
    candidates = np.zeros((30, 40, 40), bool)
    for candidate in candidates:
        y, x = generator.integers(0, 30, 2)
        height, width = generator.integers(4, 16, 2)
        candidate[y : y + height, x : x + width] = True
    expected, covered = np.full((40, 40), np.nan), np.zeros((40, 40), bool)
    remaining = list(candidates)
    while True:
        remaining = [mask for mask in remaining if (mask & ~covered).sum() >= 50]
        if not remaining:
            break
        gains = [attribution[mask & ~covered].mean() for mask in remaining]
        best = remaining.pop(int(np.argmax(gains)))
        expected[best & ~covered] = max(gains)
        covered |= best
    expected[~covered] = attribution[~covered].mean()
    np.testing.assert_allclose(xrai.ranked(attribution, candidates), expected, atol=1e-12)


def test_xrai_finds_the_square():
    patch = np.zeros((96, 96, 3), np.float32)
    patch[20:60, 30:70] = (1, 0.2, 0.1)
    regions = xrai.regions(patch)
    y, x = np.mgrid[:96, :96]
    down = np.clip(20 - y, 0, None) + np.clip(y - 59, 0, None)
    across = np.clip(30 - x, 0, None) + np.clip(x - 69, 0, None)
    grown = np.hypot(down, across) <= 5  # the square and a disk of 5 pixels around it
    # The segmentation blurs before it looks, and so may be off by a pixel at the border.
    assert max((region & grown).sum() / (region | grown).sum() for region in regions) > 0.9
    assert regions.any(0).all()


def test_xrai_grows_every_segment_by_a_disk(photographs):
    from skimage.morphology import dilation, disk
    from skimage.segmentation import felzenszwalb

    patch = photographs["chelsea.png"][60:156, 120:216].astype(np.float32)
    scaled = (patch - patch.min()) / (patch.max() - patch.min()) * 2 - 1
    expected = []
    for scale in (50, 100, 150, 250, 500, 1200):
        labels = felzenszwalb(scaled, scale=scale, sigma=0.8, min_size=150)
        expected += [dilation(labels == label, disk(5)) for label in np.unique(labels)]
    assert np.array_equal(xrai.regions(patch), np.stack(expected))


def test_attributions_from_black_and_white_are_complete():
    model, module = nets.small()
    patches = nets.patches(2)
    colours = [[(shade - mean) / std for mean, std in zip(model.mean, model.std, strict=True)] for shade in (0, 1)]
    for colour in colours:
        baseline = torch.tensor(colour).view(1, 3, 1, 1).expand_as(patches)
        sums = attributions(model, patches, TARGETS, baseline, 200).sum((1, 2, 3))
        with torch.no_grad():
            risen = module(patches.double()) - module(baseline.double())
        torch.testing.assert_close(sums.double(), risen.gather(1, TARGETS[:, None])[:, 0], atol=0.02, rtol=0.01)


def test_xrai_takes_attributions_from_black_and_from_white():
    model, _ = nets.small()
    patches = nets.patches(2)
    black, white = (
        torch.tensor([(shade - mean) / std for mean, std in zip(model.mean, model.std, strict=True)]).view(1, 3, 1, 1)
        for shade in (0, 1)
    )
    values = sum(attributions(model, patches, TARGETS, b.expand_as(patches), 4) for b in (black, white)).amax(1) / 2
    found = methods.get("xrai").function(model, patches, TARGETS, steps=4)
    for patch, value, one in zip(patches, values, found, strict=True):
        expected = xrai.ranked(value.double().numpy(), xrai.regions(patch.permute(1, 2, 0).numpy()))
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-6)


def test_xrai_segments_at_another_size(photographs):
    patch = photographs["chelsea.png"][60:156, 120:216].astype(np.float32)
    fine, whole = xrai.regions(patch, 224), xrai.regions(patch)
    assert fine.shape[1:] == whole.shape[1:] == (96, 96)
    assert fine.any((1, 2)).all()
    assert fine.any(0).all()
    # Of at least 150 pixels of 224 x 224, a segment is smaller than one of 150 pixels of 96 x 96.
    assert len(fine) > len(whole)
    assert np.array_equal(xrai.regions(patch, 96), whole)
