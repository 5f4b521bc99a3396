"""Insertion and deletion against plain float64 loops, closed forms and another library."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch

from sess_ray.metrics.perturbation import (
    PRESETS,
    AverageDrop,
    AverageIncrease,
    Deletion,
    Insertion,
    Preset,
    auc,
    deletion,
    folded_kernel,
    insertion,
    masked,
    scored,
)
from tests import nets
from tests.metrics.curves import CURVES, TARGETS, THIRD, blurred_by_hand, bright, curve_by_hand, maps


@pytest.fixture(scope="module")
def by_hand(small):
    """Scores of every curve of three images, one target each."""
    _, module = small
    return {
        (kind, preset): [
            curve_by_hand(kind, preset, module, image, saliency, target)
            for image, saliency, target in zip(nets.patches(3), maps(3), TARGETS, strict=True)
        ]
        for kind, preset in CURVES
    }


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_curves_of_many_images_in_shared_batches(small, by_hand, batch_size):
    model, _ = small
    metrics = [kind(preset) for kind, preset in CURVES]
    requests = [
        (metric.series(image, saliency), target)
        for image, saliency, target in zip(nets.patches(3), maps(3), TARGETS, strict=True)
        for metric in metrics
    ]
    found = list(scored(model, iter(requests), batch_size))
    expected = [by_hand[one][image] for image in range(3) for one in CURVES]
    assert [len(scores) for scores in found] == [5, 5, 5, 5] * 3
    for scores, wanted in zip(found, expected, strict=True):
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, wanted, atol=1e-6, rtol=0)
        area = np.trapezoid(wanted, np.linspace(0, 1, len(wanted)))
        assert metrics[0].measure(scores) == pytest.approx(area, abs=1e-6)
    assert min(map(np.ptp, expected)) > 0.01  # the net does react


@pytest.mark.parametrize(("kind", "preset"), CURVES)
def test_asking_about_one_map(small, by_hand, kind, preset):
    model, _ = small
    metric = kind(preset)
    value = metric.ask(model, nets.patches(3)[1], maps(3)[1], TARGETS[1], key="b.jpg", batch_size=5)
    wanted = by_hand[kind, preset][1]
    assert value == pytest.approx(np.trapezoid(wanted, dx=1 / (len(wanted) - 1)), abs=1e-6)
    assert (metric.n, metric.summary().mean, metric.preset) == (1, value, preset)


@pytest.mark.parametrize("preset", ["rise", "groupcam"])
def test_steps_at_224(preset):
    saliency = torch.rand(224, 224, generator=torch.Generator().manual_seed(1))
    series = deletion(torch.ones(3, 224, 224), saliency, PRESETS[preset])
    assert series.count == 29
    left = [int(series[k : k + 1].sum()) // 3 for k in range(29)]
    assert left[0] == 224 * 224
    assert np.diff(left).tolist() == [-1792] * 28
    assert left[-1] == 0


def test_a_last_step_of_what_is_left():
    preset = Preset(lambda height, width: 10 * height * width // 18, torch.ones(1), "constant")
    saliency = torch.tensor([[0.1, 0.5, 0.3, 0.5, 0.9, 0.0], [0.2, 0.2, 0.5, 0.4, 0.1, 1.0]])
    series = insertion(torch.ones(3, 2, 6), saliency, preset)  # 6 of 12
    assert series.count == 3
    series = deletion(torch.ones(3, 2, 6), saliency, Preset(lambda *_: 5, torch.ones(1), "constant"))
    assert series.count == 4
    # Largest first, 0.5 in row-major order: places 11, 4, 1, 3, 8; then 9, 2, 6, 7, 0; then 10, 5.
    assert series.turn.flatten().tolist() == [2, 1, 2, 1, 1, 3, 2, 2, 1, 2, 3, 1]
    torch.testing.assert_close(series[1:4][:, 1].sum((1, 2)), torch.tensor([7.0, 2.0, 0.0]))
    torch.testing.assert_close(series[2:3][0, 0], torch.tensor([[0.0] * 5 + [1], [0, 0, 0, 0, 1, 0]]))


def test_any_slice_of_a_series():
    series = insertion(nets.patches(1, seed=5)[0], maps(1)[0], PRESETS["groupcam"])
    whole = series[:]
    assert whole.shape == (5, 3, 32, 32)
    for part in (slice(0, 1), slice(1, 3), slice(4, 5), slice(3, 99), slice(4, 4), slice(-2, None)):
        torch.testing.assert_close(series[part], whole[part], rtol=0, atol=0)


def test_the_kernel_of_rise():
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = folded_kernel(11, 5.0).numpy()
    np.testing.assert_allclose(np.outer(kernel, kernel), scipy.ndimage.gaussian_filter(delta, 5), atol=1e-12, rtol=0)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    for size, sigma in ((3, 5.0), (7, 0.6), (21, 3.0)):
        line = np.eye(size)[size // 2]
        found = folded_kernel(size, sigma).numpy()
        np.testing.assert_allclose(found, scipy.ndimage.gaussian_filter1d(line, sigma), atol=1e-12, rtol=0)


@pytest.mark.parametrize("preset", ["rise", "groupcam"])
def test_where_insertion_starts(preset):
    image = torch.randn(3, 40, 56, generator=torch.Generator().manual_seed(2))
    series = insertion(image, torch.zeros(40, 56), PRESETS[preset])
    expected = blurred_by_hand(image.double().numpy(), preset)
    np.testing.assert_allclose(series[0:1][0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(series[series.count - 1 :][0], image, rtol=0, atol=0)


def on_rows(rows):
    saliency = torch.zeros(nets.SIDE, nets.SIDE)
    saliency[rows] = 1
    return saliency


NO_BLUR = Preset(PRESETS["rise"].step, torch.zeros(1), "constant")


@pytest.mark.parametrize(
    ("saliency", "deleted", "inserted"),
    [
        (on_rows(THIRD), 0.53125, 0.71875),  # .75 .5 .5 .5 .5 and .5 .75 .75 .75 .75
        (1 - on_rows(THIRD), 0.71875, 0.53125),  # .75 .75 .75 .75 .5 and .5 .5 .5 .5 .75
        (torch.full((32, 32), 0.5), 0.65625, 0.59375),  # row-major: .75 .75 .75 .5 .5 and .5 .5 .5 .75 .75
        (torch.zeros(32, 32), 0.65625, 0.59375),
        (torch.full((32, 32), torch.nan), 0.65625, 0.59375),
        (on_rows(slice(20, 28)), 0.631731, 0.631731),  # half of the rows with the first step, half with the last
    ],
)
def test_areas_by_hand(saliency, deleted, inserted):
    model, image = bright(THIRD), torch.ones(3, nets.SIDE, nets.SIDE)
    requests = [(deletion(image, saliency, PRESETS["rise"]), 0), (insertion(image, saliency, NO_BLUR), 0)]
    found = [auc(scores) for scores in scored(model, requests, 3)]
    np.testing.assert_allclose(found, [deleted, inserted], atol=1e-6)


@pytest.mark.parametrize("preset", ["rise", "groupcam"])
def test_good_maps_beat_random_ones(preset):
    """The image is white noise of one sign, which a blur does not bring back."""
    generator = torch.Generator().manual_seed(6)
    image = torch.zeros(3, nets.SIDE, nets.SIDE)
    image[0, THIRD] = 2 * torch.rand(8, nets.SIDE, generator=generator)
    random = torch.rand(nets.SIDE, nets.SIDE, generator=generator)
    found = {}
    for name, saliency in (("good", on_rows(THIRD)), ("random", random), ("bad", 1 - on_rows(THIRD))):
        metrics = Insertion(preset), Deletion(preset)
        found[name] = [metric.ask(bright(THIRD), image, saliency, 0, key="") for metric in metrics]
    assert found["good"][0] > found["random"][0] + 0.02 > found["bad"][0] + 0.04
    assert found["good"][1] + 0.04 < found["random"][1] + 0.02 < found["bad"][1]


def test_unknown_values_count_as_zero():
    """A NaN among larger and smaller values goes where 0 goes."""
    saliency = on_rows(slice(0, 8)) - on_rows(slice(8, 16))
    unknown = saliency.where(saliency != 0, torch.nan)
    image = nets.patches(1)[0]
    for preset in PRESETS.values():
        assert deletion(image, unknown, preset).turn.equal(deletion(image, saliency, preset).turn)
    assert masked(image, unknown)[:].equal(masked(image, saliency)[:])


class Extractor:
    """What torch-cam's metrics ask for maps: ours, ready made."""

    def __init__(self, module, saliency):
        self.model, self.saliency = module, saliency

    def __call__(self, *_, **__):
        return [self.saliency]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


def test_torchcam_agrees(small):
    """Where steps divide the pixels: with a rest its last interval is shorter, while RISE's release spaces all alike.

    Drops differ by the 1e-7 that it adds to a divisor.
    """
    oracle = pytest.importorskip("torchcam.metrics", reason="a second oracle: pip install 'sess-ray[oracles]'")
    model, module = small
    images, saliency = nets.patches(3, seed=7), maps(3, seed=7)
    found = {kind: kind() for kind in (Insertion, Deletion, AverageDrop, AverageIncrease)}
    for number, target in enumerate(TARGETS):
        for metric in found.values():
            metric.ask(model, images[number], saliency[number], target, key=str(number))
    means = {kind: metric.summary().mean for kind, metric in found.items()}

    extractor = Extractor(module, saliency.double())

    def softmax(logits):
        return logits.softmax(-1)

    curves = oracle.DeletionInsertionMetric(extractor, softmax, steps=4)
    curves.update(images.double(), list(TARGETS))
    assert means[Deletion] == pytest.approx(curves.summary()["deletion_auc"], abs=1e-6)
    start = torch.from_numpy(np.stack([blurred_by_hand(image, "rise") for image in images.double().numpy()]))
    curves = oracle.DeletionInsertionMetric(extractor, softmax, steps=4, baseline=start)
    curves.update(images.double(), list(TARGETS))
    assert means[Insertion] == pytest.approx(curves.summary()["insertion_auc"], abs=1e-6)
    shares = oracle.ClassificationMetric(extractor, softmax)
    shares.update(images.double(), list(TARGETS))
    assert means[AverageDrop] == pytest.approx(shares.summary()["avg_drop"], abs=1e-5)
    assert means[AverageIncrease] == shares.summary()["conf_increase"]
