"""Metrics of perturbed images against plain float64 loops, closed forms and another library."""

from __future__ import annotations

import contextlib
import copy
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from torch import nn

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
    Preset,
    Series,
    at_input_size,
    auc,
    deletion,
    folded_kernel,
    insertion,
    masked,
    scored,
)
from tests import nets

CPU = torch.device("cpu")
CURVES = [(kind, preset) for kind in (Insertion, Deletion) for preset in ("rise", "groupcam")]
TARGETS = (3, 0, 4)


def maps(count, seed=0):
    """Return maps (count, SIDE, SIDE) in 0..1 of few values, so that many pixels tie."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 12, (count, nets.SIDE, nets.SIDE)) / 11).float()


def blurred_by_hand(image, preset):
    """Return the blur of an image (3, h, w), float64, as one two-dimensional sum."""
    if preset == "rise":
        delta = np.zeros((11, 11))
        delta[5, 5] = 1
        kernel = scipy.ndimage.gaussian_filter(delta, 5)
        return np.stack([scipy.signal.convolve2d(channel, kernel, mode="same") for channel in image])
    offsets = np.arange(-25, 26)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 50.0**2))
    padded = np.pad(image, ((0, 0), (25, 25), (25, 25)), mode="reflect")
    return np.stack([scipy.signal.convolve2d(channel, kernel / kernel.sum(), mode="valid") for channel in padded])


def curve_by_hand(kind, preset, module, image, saliency, target):
    """Return the scores of a curve, changing one pixel at a time."""
    image, saliency = image.double().numpy(), saliency.numpy()
    step = 256  # 8 rows of 32 pixels
    if kind is Deletion:
        now, goal = copy.deepcopy(image), np.zeros_like(image)
    else:
        now, goal = blurred_by_hand(image, preset), image
    pixels = [(y, x) for y in range(nets.SIDE) for x in range(nets.SIDE)]
    pixels.sort(key=lambda at: -saliency[at])  # stable
    scores = [nets.probability(module, torch.from_numpy(now), target).item()]
    while pixels:
        for y, x in pixels[:step]:
            now[:, y, x] = goal[:, y, x]
        del pixels[:step]
        scores.append(nets.probability(module, torch.from_numpy(now), target).item())
    return np.array(scores)


@pytest.fixture(scope="module")
def small():
    return nets.small()


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


class Bright(nn.Module):
    """Logits (ln 3 times the mean of red in a few rows, 0)."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.light = nn.Identity()

    def forward(self, x):
        logit = math.log(3) * self.light(x)[:, 0, self.rows].mean((1, 2))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def bright(rows):
    model = sess_ray.load_model(Bright(rows), layer="light", input_size=nets.SIDE)
    return model.prepared(CPU, "fp32")


def on_rows(rows):
    saliency = torch.zeros(nets.SIDE, nets.SIDE)
    saliency[rows] = 1
    return saliency


# Four steps of 8 rows. With those rows white the probability is 3/4, without them 1/2; half of them, sqrt(3) / (1 +
# sqrt(3)). An area is (first / 2 + three in the middle + last / 2) / 4.
THIRD = slice(16, 24)
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
