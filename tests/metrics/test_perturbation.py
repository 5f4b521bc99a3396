"""What all metrics of perturbed images share, and drop and increase: batches, sizes, unknown values."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

import sess_ray
from sess_ray import SESS, SessError
from sess_ray.metrics import perturbation
from sess_ray.metrics.perturbation import (
    PRESETS,
    AverageDrop,
    AverageIncrease,
    Deletion,
    Insertion,
    Overall,
    Series,
    at_input_size,
    auc,
    deletion,
    masked,
    scored,
)
from tests import nets
from tests.metrics.curves import CPU, CURVES, TARGETS, THIRD, bright, curve_by_hand, maps


@pytest.mark.parametrize("saliency", [torch.zeros(32, 32), torch.full((32, 32), torch.nan), torch.ones(32, 32)])
@pytest.mark.parametrize("kind", [Insertion, Deletion, AverageDrop, AverageIncrease])
def test_degenerate_maps_have_values(small, kind, saliency):
    value = kind().ask(small[0], nets.patches(1)[0], saliency, 2, key="a")
    assert 0 <= value <= 1


@pytest.mark.parametrize(
    ("whole", "seen", "drop", "increase"),
    [(0.8, 0.2, 0.75, 0), (0.2, 0.8, 0, 1), (0.5, 0.5, 0, 0), (0, 0, 0, 0), (0, 0.3, 0, 1), (0.4, 0, 1, 0)],
)
def test_drop_and_increase(whole, seen, drop, increase):
    scores = np.array([whole, seen], np.float64)
    assert AverageDrop().measure(scores) == pytest.approx(drop, abs=1e-15)
    assert AverageIncrease().measure(scores) == increase


def test_means_of_drop_and_increase():
    """(0.75 + 0 + 0.5) / 3 and 1 / 3."""
    drop, increase = AverageDrop(), AverageIncrease()
    for key, scores in {"a": (0.8, 0.2), "b": (0.2, 0.8), "c": (0.5, 0.25)}.items():
        drop.update(np.array(scores), key=key)
        increase.update(np.array(scores), key=key)
    assert drop.summary().mean == pytest.approx(1.25 / 3)
    assert increase.summary().mean == pytest.approx(1 / 3)


def test_what_drop_and_increase_ask(small):
    """The image through its map; here, by the closed form, 3 of 4 rows are hidden by a half: logit ln 3 (1 - 3/8)."""
    image, saliency = torch.ones(3, nets.SIDE, nets.SIDE), torch.ones(nets.SIDE, nets.SIDE)
    saliency[18:24] = 0.5
    odds = 3 ** (1 - 3 / 8)
    seen = odds / (1 + odds)
    value = AverageDrop().ask(bright(THIRD), image, saliency, 0, key="a")
    assert value == pytest.approx((0.75 - seen) / 0.75, abs=1e-6)
    assert AverageIncrease().ask(bright(THIRD), image, saliency, 0, key="a") == 0
    assert AverageIncrease().ask(bright(THIRD), image, saliency, 1, key="a") == 1
    model, module = small
    for image, saliency, target in zip(nets.patches(3, seed=4), maps(3, seed=4), TARGETS, strict=True):
        whole = nets.probability(module, image, target).item()
        seen = nets.probability(module, image.double() * saliency.double(), target).item()
        value = AverageDrop().ask(model, image, saliency, target, key="a")
        assert value == pytest.approx(max(0, whole - seen) / whole, abs=1e-5)


def test_overall():
    metric = Overall()
    assert metric.update(0.75, 0.5, key="a") == 0.25
    assert metric.update(0.25, 0.5, key="b") == -0.25
    assert metric.summary().mean == 0


def test_area():
    assert auc(np.array([0, 1])) == 0.5
    assert auc(np.array([1, 0.5, 0.25], np.float32)) == 0.5625  # (0.75 + 0.375) / 2


def test_names():
    kinds = (Insertion, Deletion, Overall, AverageDrop, AverageIncrease)
    assert [kind.name for kind in kinds] == ["insertion", "deletion", "overall", "average_drop", "average_increase"]
    assert [kind.better for kind in kinds] == ["higher", "lower", "higher", "lower", "higher"]
    assert Deletion().preset == "rise"
    asked = [metric.question for metric in (Insertion(), Deletion("groupcam"), AverageDrop(), AverageIncrease())]
    assert asked == ["insertion_rise", "deletion_groupcam", "masked", "masked"]
    with pytest.raises(SessError, match=r"unknown preset 'rice': choose one of: groupcam, rise"):
        Insertion("rice")


def test_a_batch_holds_an_input(small):
    with pytest.raises(SessError, match="batch_size is 0"):
        next(scored(small[0], [], 0))


@contextlib.contextmanager
def seen_by(model):
    """Collect the sizes of the batches that go through a model."""
    sizes = []
    handle = model.scorer.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    yield sizes
    handle.remove()


def test_the_model_sees_each_input_once_in_full_batches(small):
    model, _ = small
    image, saliency = nets.patches(1)[0], maps(1)[0]
    metrics = [kind(preset) for kind, preset in CURVES] + [AverageDrop()]
    requests = [(metric.series(image, saliency), target) for metric in metrics for target in (1, 2)]
    with seen_by(model) as sizes:
        found = list(scored(model, requests, 11))
    assert [len(scores) for scores in found] == [5] * 8 + [2] * 2
    assert sizes == [11] * 4  # 44 inputs
    with seen_by(model) as sizes:
        list(scored(model, requests[:3], 7))
    assert sizes == [7, 7, 1]
    assert list(scored(model, [], 16)) == []


class Watched(Series):
    """A series that writes down what is made of it."""

    made = None

    def __getitem__(self, part):
        found = super().__getitem__(part)
        Watched.made.append(len(found))
        return found


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_inputs_are_made_when_they_are_due(small, monkeypatch, batch_size):
    """Between two batches no more inputs are made than a batch holds, and a score waits for no later request."""
    model, _ = small
    monkeypatch.setattr(Watched, "made", [])
    taken, most = [], []
    kept = perturbation._probabilities

    def probabilities(model, inputs, targets):
        most.append(sum(Watched.made))
        Watched.made.clear()
        return kept(model, inputs, targets)

    monkeypatch.setattr(perturbation, "_probabilities", probabilities)

    def requests():
        for number, (image, saliency) in enumerate(zip(nets.patches(6), maps(6), strict=True)):
            taken.append(number)
            series = deletion(image, saliency, PRESETS["rise"])
            yield Watched(series.first, series.last, series.turn, series.count), 0

    ahead = []
    for number, _ in enumerate(scored(model, requests(), batch_size)):
        ahead.append(taken[-1] - number)
    assert max(most) == batch_size
    assert sum(most) == 30
    assert max(ahead) == {1: 0, 4: 1, 16: 3}[batch_size]  # 5 inputs a request: those with a part in the batch


def test_gradients_of_the_caller(small):
    """No gradient is recorded here, and whoever makes the requests may still want one."""
    model, _ = small

    def requests():
        for image, saliency in zip(nets.patches(2), maps(2), strict=True):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert model.tap(image[None]).gradients(torch.tensor([0])).abs().sum() > 0
            yield deletion(image, saliency, PRESETS["rise"]), 0

    recording = []
    handle = model.scorer.register_forward_hook(lambda *_: recording.append(torch.is_grad_enabled()))
    for _ in scored(model, requests(), 64):
        assert torch.is_grad_enabled()
    handle.remove()
    assert recording == [True, True, False]  # of the requests, then of the scores


def test_half_precision(small):
    _, module = small
    model = sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE).prepared(CPU, "bf16")
    image, saliency = nets.patches(1)[0], maps(1)[0]
    seen = []
    handle = model.scorer.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    [found] = scored(model, [(deletion(image, saliency, PRESETS["rise"]), 3)], 8)
    handle.remove()
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == np.float64
    expected = curve_by_hand(Deletion, "rise", module, image, saliency, 3)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("num_scales", [None, 1])
def test_the_first_score_is_that_of_the_explanation(lite0, photographs, num_scales):
    pixels = photographs["chelsea.png"][:250, 30:381]  # the tail of the cat is not needed: neither side is 224
    sess = SESS(lite0, num_scales=num_scales, device="cpu")
    [[found]] = sess.explain([pixels])
    image, saliency = at_input_size(pixels, found.saliency, sess.model)
    [scores] = scored(sess.model, [(masked(image, saliency), found.target)], 8)
    assert scores[0] == pytest.approx(found.score, abs=1e-5)
    assert found.score > 0.2


@pytest.mark.parametrize("size", [(70, 45), (20, 90), (32, 32), (9, 11)])
def test_at_input_size(small, size):
    model, _ = small
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (*size, 3), np.uint8)
    saliency = random.random(size).astype(np.float32)
    image, found = at_input_size(pixels, saliency, model)
    assert image.dtype == found.dtype == torch.float32

    def squashed(values):
        return torch.nn.functional.interpolate(
            torch.from_numpy(values)[None], (32, 32), mode="bilinear", antialias=True, align_corners=False
        )[0]

    mean, std = np.array(model.mean), np.array(model.std)
    expected = squashed(((pixels / 255 - mean) / std).transpose(2, 0, 1))
    torch.testing.assert_close(image.double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.double(), squashed(saliency[None].astype(np.float64))[0], atol=1e-6, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1


def test_unknown_values_count_as_zero_before_they_are_resampled(small):
    saliency = np.random.default_rng(4).random((64, 64)).astype(np.float32)
    holes = saliency.copy()
    holes[10:30, 5:9] = np.nan
    saliency[10:30, 5:9] = 0
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels.flags.writeable = False
    (_, first), (_, second) = (at_input_size(pixels, one, small[0]) for one in (saliency, holes))
    assert first.equal(second)
