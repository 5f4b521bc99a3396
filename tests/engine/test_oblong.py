"""Models whose input is not square: windows, maps and scores against the literal definition, and by symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as TF

from sess_ray import SESS, load_model
from sess_ray.metrics import at_input_size
from sess_ray.metrics.perturbation import PRESETS, deletion, insertion, scored
from sess_ray.pictures.plots import rectangle, window_maps
from tests import literal, nets

TALL, WIDE = (48, 32), (24, 56)


def small(size):
    return load_model(nets.Small(scale=15), layer="third", input_size=size)


@pytest.fixture(scope="module")
def pixels(photographs):
    return np.ascontiguousarray(photographs["chelsea.png"][60:160, 100:240])


@pytest.mark.parametrize("size", [TALL, WIDE])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("fusion", "ratio"), [("seamless", 0.5), ("seamless", 0.0), ("reference", 0.9)])
def test_sess_is_its_literal_definition(pixels, size, turned, fusion, ratio):
    image = np.ascontiguousarray(pixels.transpose(1, 0, 2)) if turned else pixels
    model, settings = small(size), {"num_scales": 3, "fusion": fusion}
    expected, scores, kept = nets.literally(literal.sess, model, image, 2, step=size, ratio=ratio, **settings)
    sess = SESS(model, pre_filter_ratio=ratio, fade=0.0, normalize=False, smooth=False, device="cpu", **settings)
    [[found]] = sess.explain([image], [[2]])
    np.testing.assert_allclose(found.patches["score"], scores, atol=1e-5)
    assert set(np.flatnonzero(found.patches["kept"])) == kept
    np.testing.assert_allclose(found.saliency, expected, atol=1e-5)
    assert found.saliency.max() > 0.1


def test_guided_windows_are_those_of_the_literal_definition(pixels):
    settings = {"num_scales": 5, "whole": 2, "share": 0.3}
    expected = nets.literally(literal.guided, small(TALL), pixels, 3, **settings)
    sess = SESS(small(TALL), num_scales=5, fade=0.0, windows="guided", whole_scales=2, window_share=0.3, device="cpu")
    [[found]] = sess.explain([pixels], [[3]])
    assert set(np.flatnonzero(found.patches["scored"])) == expected
    assert found.num_scored < found.num_patches


def test_one_step_counts_along_both_axes(pixels):
    plan = SESS(small(TALL), num_scales=2, step_size=20, device="cpu").plan(*pixels.shape[:2])
    assert [scale.ys[:2] for scale in plan.scales] == [(0,), (0, 20)]
    assert [scale.xs[:2] for scale in plan.scales] == [(0, 20), (0, 20)]


@pytest.mark.parametrize("size", [TALL, WIDE])
def test_without_sess_the_whole_image_is_one_window(pixels, size):
    model = small(size)
    module = model.prepared(torch.device("cpu"), "fp32").module
    image = TF.normalize(torch.from_numpy(pixels).permute(2, 0, 1).double() / 255, model.mean, model.std)
    patch = TF.resize(image, list(size), antialias=True).float()
    value = literal.grad_cam(module, "third", patch, 1)
    expected = F.interpolate(value[None, None], pixels.shape[:2], mode="bilinear")[0, 0]
    [[found]] = SESS(model, num_scales=None, normalize=False, device="cpu").explain([pixels], [[1]])
    np.testing.assert_allclose(found.saliency, expected, atol=1e-5)
    logits = module(patch[None])
    assert found.score == pytest.approx(float(logits.softmax(1)[0, 1]), abs=1e-6)
    assert found.predicted == int(logits.argmax())
    sizes, saliency = at_input_size(pixels, found.saliency, model)
    torch.testing.assert_close(sizes, patch, atol=1e-5, rtol=0)
    assert saliency.shape == size


def test_insertion_and_deletion_end_at_the_image_and_at_its_mean(pixels):
    model = small(TALL).prepared(torch.device("cpu"), "fp32")
    [[found]] = SESS(model, num_scales=2, device="cpu").explain([pixels], [[2]])
    image, saliency = at_input_size(pixels, found.saliency, model)
    inserted, deleted = (make(image, saliency, PRESETS["rise"]) for make in (insertion, deletion))
    assert inserted.count == deleted.count == 48 * 32 // (8 * 32) + 1
    first, last = scored(model, [(inserted, 2), (deleted, 2)], 4)
    with torch.no_grad():
        grey = model.module(torch.zeros(1, 3, *TALL)).softmax(1)[0, 2]
    assert last[0] == pytest.approx(found.score, abs=1e-6) == pytest.approx(first[-1], abs=1e-6)
    assert last[-1] == pytest.approx(float(grey), abs=1e-6)


def test_a_window_has_its_own_shape_in_pictures(pixels):
    [[found]] = SESS(small(TALL), num_scales=2, keep_maps=True, device="cpu").explain([pixels], [[2]])
    assert window_maps(found).shape == (found.num_kept, *TALL)
    for number, (index, y, x) in enumerate(found.plan.positions()):
        scale = found.plan.scales[index]
        down, across = pixels.shape[0] / scale.height, pixels.shape[1] / scale.width
        expected = (x * across, y * down, (x + 32) * across, (y + 48) * down)
        assert rectangle(found, number) == pytest.approx(expected)


@pytest.mark.parametrize("given", [48, (48, 48), [48, 48]])
def test_a_square_is_one_number_however_it_is_given(given):
    model = small(given)
    assert (model.input_size, model.sides) == (48, (48, 48))
    assert (small(TALL).input_size, small(TALL).sides) == (TALL, TALL)
