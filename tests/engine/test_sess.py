from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sess_ray import SESS, SessError, load_model, methods
from sess_ray.methods import registry
from tests import literal, nets


def compare_with_literal(model, pixels, target, *, fusion, ratio, num_scales, size=None, **options):
    settings = {"num_scales": num_scales, "step": model.input_size, "ratio": ratio, "fusion": fusion, "size": size}
    expected, scores, kept = nets.literally(literal.sess, model, pixels, target, **settings)
    options |= {"num_scales": num_scales, "pre_filter_ratio": ratio, "fusion": fusion}
    sess = SESS(model, fade=0.0, normalize=False, smooth=False, device="cpu", **options)
    [[found]] = sess.explain([pixels], targets=[[target]])
    np.testing.assert_allclose(found.patches["score"], scores, atol=1e-5)
    assert set(np.flatnonzero(found.patches["kept"])) == kept
    np.testing.assert_allclose(found.saliency, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["reference", "seamless"])
@pytest.mark.parametrize(
    ("name", "target", "ratio", "num_scales"), [("chelsea.png", 281, 0.9, 6), ("coffee.png", 967, 0.5, 3)]
)
def test_sess_is_its_literal_definition(lite0, photographs, fusion, name, target, ratio, num_scales):
    compare_with_literal(lite0, photographs[name], target, fusion=fusion, ratio=ratio, num_scales=num_scales)


@pytest.mark.parametrize("fusion", ["reference", "seamless"])
@pytest.mark.parametrize(("ratio", "num_scales"), [(0.0, 4), pytest.param(0.9, 6, marks=pytest.mark.slow)])
def test_sess_with_a_known_head_is_its_literal_definition(real_squeezenet, photographs, fusion, ratio, num_scales):
    settings = {"fusion": fusion, "ratio": ratio, "num_scales": num_scales}
    compare_with_literal(real_squeezenet, photographs["rocket.jpg"], 657, **settings)


@pytest.mark.parametrize("fusion", ["reference", "seamless"])
def test_a_smaller_map_is_fused_of_the_same_windows(lite0, photographs, fusion):
    settings = {"fusion": fusion, "ratio": 0.7, "num_scales": 3, "max_map_side": 130}
    compare_with_literal(lite0, photographs["coffee.png"], 967, size=(87, 130), **settings)  # of 400 x 600


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(60, 91), (224, 224), (448, 224), (97, 700)])
def test_odd_sizes_too(lite0, photographs, shape):
    pixels = np.asarray(Image.fromarray(photographs["astronaut.png"]).resize(shape[::-1]))
    compare_with_literal(lite0, pixels, 652, fusion="reference", ratio=0.7, num_scales=2)


@pytest.mark.slow
def test_images_share_batches_and_stay_apart(lite0, photographs):
    names = ["chelsea.png", "coffee.png", "rocket.jpg"]
    small = [np.asarray(Image.fromarray(photographs[name]).resize((300 - 40 * i, 260))) for i, name in enumerate(names)]
    targets = [[281, 285], [967], [657, 404, 812]]
    together = SESS(lite0, num_scales=2, device="cpu", batch_size=13).explain(small, targets)
    assert [[e.target for e in explanations] for explanations in together] == targets
    for pixels, classes, found in zip(small, targets, together, strict=True):
        for target, explanation in zip(classes, found, strict=True):
            [[alone]] = SESS(lite0, num_scales=2, device="cpu", batch_size=64).explain([pixels], [[target]])
            np.testing.assert_allclose(explanation.saliency, alone.saliency, atol=1e-5)
            assert explanation.score == pytest.approx(alone.score, abs=1e-5)


class Brightness(nn.Module):
    """Class 0 is dark, class 1 is bright."""

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 8, stride=8)
        self.classes = nn.Linear(1, 2)
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), (1 / 192, 0, torch.tensor([[-1.0], [1.0]]), 0), strict=True):
                parameter.copy_(torch.as_tensor(value))

    def forward(self, patches):
        return self.classes(self.cells(patches).mean((2, 3)))


def test_a_batch_may_hold_nothing_new_for_one_target_of_an_image():
    # The second batch is the second window, too bright for class 0, and of the next image only the whole.
    pixels = np.repeat(np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], 32, 1), 3, 2)
    model = load_model(Brightness(), layer="cells", input_size=32)
    sess = SESS(model, num_scales=1, pre_filter_ratio=0.5, device="cpu", batch_size=2)
    alone = SESS(model, num_scales=1, pre_filter_ratio=0.5, device="cpu", batch_size=64)
    [[dark, bright]] = alone.explain([pixels], [[0, 1]])
    assert dark.patches["score"][1] < dark.patches["score"][0]
    for found in sess.explain([pixels] * 4, [[0, 1]] * 4):
        for explanation, expected in zip(found, (dark, bright), strict=True):
            np.testing.assert_allclose(explanation.saliency, expected.saliency, atol=1e-6)


@pytest.mark.parametrize("name", ["groupcam", "scorecam"])
def test_the_layer_is_remembered_from_the_scoring_pass(name, monkeypatch, photographs):
    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    images = [photographs[name][:90, :120] for name in ("chelsea.png", "coffee.png")]

    def explain():
        sess = SESS(model, name, num_scales=3, pre_filter_ratio=0.5, device="cpu", method_options=options)
        rows = []
        handle = sess.model.scorer.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        found = sess.explain(images, [[3], [1, 2]])
        handle.remove()
        return [explanation for explanations in found for explanation in explanations], sum(rows)

    options = {"groups": 2} if name == "groupcam" else {}
    remembered, forwards = explain()
    monkeypatch.setattr("sess_ray.engine.scoring.LAYER_BYTES", 0)
    again, more = explain()
    assert more - forwards == sum(explanation.num_kept for explanation in remembered)
    for one, other in zip(remembered, again, strict=True):
        np.testing.assert_allclose(one.saliency, other.saliency, atol=1e-5)


@pytest.mark.parametrize(("ratio", "times"), [(0.0, 1), (0.8, 3)])
def test_maps_that_are_the_same_for_every_target_are_made_once(ratio, times):
    """Where the pre-filter drops windows, a CPU makes only maps of those that each target may keep."""
    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    pixels, counts = np.random.default_rng(4).integers(0, 256, (60, 90, 3), np.uint8), []

    def brightest(activations):
        counts.append(len(activations))
        return activations.amax(1)

    method = methods.Method("brightest", "T", brightest)
    sess = SESS(model, method=method, num_scales=3, pre_filter_ratio=ratio, device="cpu", batch_size=64)
    [together] = sess.explain([pixels], [[1, 2, 4]])
    assert len(counts) == times
    for found in together:
        [[alone]] = sess.explain([pixels], [[found.target]])
        np.testing.assert_array_equal(found.saliency, alone.saliency)
    assert np.abs(together[0].saliency - together[1].saliency).max() > 0.01


def test_a_method_may_look_at_gradients_alone(photographs):
    def steepness(_model, _patches, _targets, *, gradients):
        return gradients.abs().sum(1)

    def directly(model, patches, targets):
        return model.tap(patches).gradients(targets).abs().sum(1)

    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    first, second = (
        SESS(model, methods.Method("mine", "P", function), num_scales=3, device="cpu").explain(
            [photographs["chelsea.png"][:90, :120]], [[3]]
        )
        for function in (steepness, directly)
    )
    assert first[0][0].saliency.any()
    np.testing.assert_allclose(first[0][0].saliency, second[0][0].saliency, atol=1e-5)


def test_of_alternatives_the_one_of_highest_score_is_explained(lite0, photographs):
    sess = SESS(lite0, num_scales=None, device="cpu")
    pixels = photographs["chelsea.png"]
    cats = (283, 281, 282)
    [each] = sess.explain([pixels], [cats])
    [[best, other]] = sess.explain([pixels], [[cats, 948]])
    assert best.target == max(each, key=lambda explanation: explanation.score).target == 282
    assert other.target == 948


def test_without_sess(lite0, photographs):
    pixels = photographs["chelsea.png"]
    [[found]] = SESS(lite0, num_scales=None, device="cpu").explain([pixels], [[281]])
    prepared = lite0.prepared(torch.device("cpu"), "fp32")
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    image = torch.nn.functional.interpolate(image[None], size=(224, 224), mode="bilinear", antialias=True)
    patch = ((image - 0.5) / 0.5)[0]
    value = literal.grad_cam(prepared.module, lite0.layer, patch, 281)
    expected = literal.calibrated(value, 0, 0, (224, 224), pixels.shape[:2])
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(found.saliency, expected, atol=1e-5)
    assert found.num_patches == found.num_kept == 1
    assert found.patches["score"][0] == pytest.approx(found.score)


def test_top_targets_are_those_of_the_whole_image(lite0, photographs):
    sess = SESS(lite0, num_scales=1, device="cpu")
    [found] = sess.explain([photographs["coffee.png"]], "top5")
    scores = [explanation.score for explanation in found]
    assert len(found) == 5
    assert scores == sorted(scores, reverse=True)
    assert found[0].target == found[0].predicted == 967
    assert found[0].predicted_score == scores[0]


def test_maps_run_from_0_to_1_and_the_object_is_lit(lite0, photographs):
    [[found]] = SESS(lite0, num_scales=4, device="cpu").explain([photographs["coffee.png"]], [[967]])
    assert (found.saliency.min(), found.saliency.max()) == (0, 1)
    assert found.saliency.dtype == np.float32
    x, y = found.peak
    assert found.saliency[y, x] == 1
    assert 130 < x < 470
    assert 60 < y < 330  # the cup


@pytest.mark.slow
def test_bfloat16_is_close(lite0, photographs):
    pixels = photographs["coffee.png"]
    [[exact]] = SESS(lite0, num_scales=1, device="cpu").explain([pixels], [[967]])
    [[fast]] = SESS(lite0, num_scales=1, precision="bf16", device="cpu").explain([pixels], [[967]])
    assert np.corrcoef(exact.saliency.ravel(), fast.saliency.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(fast.patches["score"], exact.patches["score"], atol=0.05)


@pytest.fixture
def brightness():
    """A user's own method: how bright a patch is, on a coarse grid."""

    @methods.register("brightness")
    def brightness(model, patches, targets):
        assert model.num_classes == 1000
        assert len(patches) == len(targets)
        return torch.nn.functional.avg_pool2d(patches.mean(1, keepdim=True), 32)[:, 0]

    yield "brightness"
    del registry._METHODS["brightness"]


@pytest.mark.slow
def test_a_users_own_method_is_one_line(lite0, photographs, brightness):
    pixels = photographs["rocket.jpg"]
    [[found]] = SESS(lite0, method=brightness, num_scales=2, pre_filter_ratio=0.5, device="cpu").explain([pixels])
    assert found.saliency.shape == pixels.shape[:2]
    light = pixels.mean(2)
    assert found.saliency[light > 200].mean() > found.saliency[light < 30].mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradcm"}, "unknown method"),
        ({"num_scales": -1}, "num_scales is -1"),
        ({"step_size": 0}, "step_size is 0"),
        ({"pre_filter_ratio": 1.5}, "share from 0 to 1"),
        ({"fade": 0.6}, "fade is 0.6: use a share of a window's side from 0 to 0.5"),
        ({"fade": 0.2, "fusion": "reference"}, "fade is 0.2 and fusion is reference, which has none: leave out one"),
        ({"fusion": "mean"}, "unknown fusion 'mean': choose one of: reference, seamless"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_map_side": 0}, "max_map_side is 0: use 1 pixel or more"),
        ({"device": "tpu9"}, "device 'tpu9' is not available"),
    ],
)
def test_wrong_options(squeezenet, options, message):
    with pytest.raises(SessError, match=message):
        SESS(squeezenet, **{"device": "cpu", **options})


def test_wrong_inputs(squeezenet):
    sess = SESS(squeezenet, num_scales=2, max_patches=8, device="cpu")
    fine = np.zeros((30, 40, 3), np.uint8)
    for images, targets, message in (
        ([np.zeros((30, 40, 7))], "top1", "give a path, a Pillow image, or an array"),
        ([fine], "best", "unknown class 'best'"),
        ([fine], [[1000]], "out of range"),
        ([fine], [[]], "at least one class"),
        ([fine], [[1], [2]], "2 targets for 1 images"),
        ([np.zeros((300, 1000, 3), np.uint8)], "top1", "1000 x 300 pixels needs 14 windows, more than the 8"),
        ([np.zeros((20_000, 30, 3), np.uint8)], "top1", "30 x 20000 pixels needs more than 8 windows"),
    ):
        with pytest.raises(SessError, match=message):
            sess.explain(images, targets)


def test_a_model_that_gives_nan_says_so(squeezenet):
    broken = squeezenet.prepared(torch.device("cpu"), "fp32")
    broken.module.classifier[1].bias.fill_(torch.nan)
    with pytest.raises(SessError, match="not finite"):
        SESS(broken, num_scales=1, device="cpu").explain([np.zeros((30, 40, 3), np.uint8)])


PLAN = (
    "from sess_ray.pipeline.explain import prepare as plan, config;"
    " config = config.ExplainConfig(output='none', dry_run=True)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        ("import sess_ray; sess_ray.SESS, sess_ray.load_model", "ray"),
        (
            "import sess_ray.cli.command, sess_ray.demo; from sess_ray.pipeline.explain import prepare, stages",
            "torch",
        ),
        ("import sess_ray; sess_ray.load_model('tests.fragile:model')", "torch._dynamo"),
        (f"{PLAN}; plan.prepare(config, lambda: sys.exit('torch' in sys.modules)); sys.exit('never called')", "torch"),
    ],
)
def test_what_takes_seconds_to_import_is_not_without_need(code, unneeded):
    code = f"import sys; {code}; sys.exit('{unneeded}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PEAKS = """
import resource, sys
import numpy as np, torch
import sess_ray
torch.set_num_threads(1)
from tests import nets
model = sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE)
sess = sess_ray.SESS(model, num_scales=2, device="cpu")
image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
sess.explain([image], [[1, 2]])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def images(height, width, count):
    for _ in range(count):
        yield np.full((height, width, 3), 7, np.uint8), [1, 2]
before = peak()
for size in sys.argv[1:]:
    for _ in sess.stream(images(*map(int, size.split("x")))):
        pass
    print(peak() - before)
"""


def peak_megabytes(*sizes):
    """How much more memory than one small image these take, each and those before: height x width x count."""
    arguments = [sys.executable, "-c", PEAKS, *sizes]
    return map(float, subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_memory_is_bounded_by_the_batch_not_by_the_images():
    few, many, large = peak_megabytes("400x500x10", "400x500x40", "4000x6000x1")
    # What 30 images leave behind, were they kept: 18 MB of pixels and 48 MB of maps.
    assert many - few < 25
    # 24 megapixels: 72 MB of pixels and 96 MB for each of two maps, plus working space that does not grow with them.
    assert large < 72 + 2 * 96 + 200
