"""Maps on a device are the CPU's, by every method that draws no random numbers, in every setting that matters."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torchvision.models import VisionTransformer

from sess_ray import SESS, load_model, methods
from sess_ray.models.tokens import Only
from tests import nets

pytestmark = pytest.mark.device
FEW = {"num_scales": 3, "pre_filter_ratio": 0.7}
SETTINGS = {
    "gradcam": {"num_scales": 6, "pre_filter_ratio": 0.9},
    "gradcam, all windows": {"num_scales": 6, "pre_filter_ratio": 0.0},
    "gradcam, small batches": {**FEW, "batch_size": 7},
    "gradcam, guided": {"num_scales": 6, "windows": "guided", "whole_scales": 2, "pre_filter_ratio": 0.5},
    "gradcam, as released": {**FEW, "fusion": "reference", "normalize": False, "smooth": False},
    "gradcam, no SESS": {"num_scales": None},
    "gradcam, small maps": {**FEW, "max_map_side": 50},
    "gradcam, step 16": {**FEW, "step_size": 16},
    "gradcam++": FEW,
    "gradient": FEW,
    "gradient, guided": {"num_scales": 4, "windows": "guided", "whole_scales": 2, "pre_filter_ratio": 0.5},
    "guided_backprop": FEW,
    "integrated_gradients": {**FEW, "method_options": {"steps": 3}},
    "excitation_backprop": FEW,
    "groupcam": {**FEW, "method_options": {"groups": 2}},
    "scorecam": FEW,
    "cameras": {"num_scales": 1, "pre_filter_ratio": 0.5, "method_options": {"sizes": 2}},
    "rise": {**FEW, "method_options": {"masks": 16}},
}
# What draws random numbers on the device draws others there: it has to run, and repeat itself.
DRAWING = {
    "smoothgrad": {**FEW, "method_options": {"samples": 2}},
    "sscam": {**FEW, "method_options": {"samples": 1}},
    "smooth_gradcam++": {**FEW, "method_options": {"samples": 2}},
}


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator("cpu").manual_seed(3)
    found = []
    for height, width in ((90, 120), (64, 64), (41, 170)):
        coarse = torch.rand(1, 3, 9, 12, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 255
        found.append(smooth.byte().permute(1, 2, 0).contiguous().numpy())
    return found


def explained(model, name, pictures, device, **settings):
    sess = SESS(model, name.partition(",")[0], device=device, **settings)
    return [one for found in sess.explain(pictures, [[1, 2], [3], [(0, 4), 2]]) for one in found]


@pytest.mark.parametrize("name", SETTINGS)
def test_maps_are_those_of_the_cpu(model, pictures, device, tolerance, name):
    expected = explained(model, name, pictures, "cpu", **SETTINGS[name])
    found = explained(model, name, pictures, device, **SETTINGS[name])
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.target, ours.predicted) == (theirs.target, theirs.predicted)
        np.testing.assert_allclose(ours.patches["score"], theirs.patches["score"], atol=1e-4)
        np.testing.assert_array_equal(ours.patches["kept"], theirs.patches["kept"])
        np.testing.assert_allclose(ours.saliency, theirs.saliency, atol=tolerance)


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_random_numbers_repeats_itself(model, pictures, device, tolerance, name):
    first, second = (explained(model, name, pictures, device, **DRAWING[name]) for _ in range(2))
    for ours, again in zip(first, second, strict=True):
        assert ours.saliency.any()
        np.testing.assert_allclose(ours.saliency, again.saliency, atol=tolerance)


@pytest.mark.parametrize("name", sorted(set(methods.names())))
def test_every_method_runs(model, pictures, device, name):
    few = {"steps": 2, "samples": 2, "masks": 8, "groups": 2, "sizes": 2, "areas": "0.2"}
    method = methods.get(name)
    if method.refusal(model.prepared(torch.device("cpu"), "fp32")):
        pytest.skip("not for this net")
    options = {option: value for option, value in few.items() if option in method.options}
    for [found] in SESS(model, method, num_scales=1, device=device, method_options=options).explain(pictures[:2]):
        assert np.isfinite(found.saliency).all()


def test_kept_maps_come_along(model, pictures, device, tolerance):
    for name in ("gradcam", "gradient"):
        expected = explained(model, name, pictures, "cpu", keep_maps=True, **FEW)
        for ours, theirs in zip(explained(model, name, pictures, device, keep_maps=True, **FEW), expected, strict=True):
            largest = np.abs(theirs.patch_maps).max()
            np.testing.assert_allclose(ours.patch_maps, theirs.patch_maps, atol=tolerance * largest)


@pytest.mark.parametrize("name", ["gradcam", "gradcam, guided", "gradcam, as released", "gradient", "gradcam, no SESS"])
def test_an_input_that_is_not_square(pictures, device, tolerance, name):
    model = load_model(nets.Small(scale=15), layer="third", input_size=(48, 32))
    ours, theirs = (explained(model, name, pictures, where, **SETTINGS[name]) for where in (device, "cpu"))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.patches["kept"], other.patches["kept"])
        np.testing.assert_allclose(one.saliency, other.saliency, atol=tolerance)


def torchvisions():
    net = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    torch.nn.init.normal_(net.heads.head.weight)
    return net


def timms():
    net = timm.models.VisionTransformer(32, 8, depth=3, num_heads=2, embed_dim=16, num_classes=5)
    torch.nn.init.normal_(net.head.weight)
    return net


@pytest.mark.parametrize(
    ("make", "method"),
    [
        *((torchvisions, method) for method in ("gradcam", "layercam", "gradient")),
        *((timms, method) for method in ("gradcam", "attention_rollout", "generic_attention")),
    ],
)
def test_a_transformer_that_reads_one_token(pictures, device, tolerance, make, method):
    model = load_model(make(), input_size=32)
    alone = [part for part in model.prepared(device, "fp32").scorer.modules() if isinstance(part, Only)]
    assert len(alone) == 1
    ours, theirs = (explained(model, method, pictures, where, **FEW) for where in (device, "cpu"))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.patches["kept"], other.patches["kept"])
        np.testing.assert_allclose(one.saliency, other.saliency, atol=tolerance)


def test_groups_of_classes(model, pictures, device, tolerance):
    targets = [[{"two": (1, 2)}, 3]] * len(pictures)
    ours, theirs = (SESS(model, device=where, **FEW).explain(pictures, targets) for where in (device, "cpu"))
    for some, others in zip(ours, theirs, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.target_classes == other.target_classes
            np.testing.assert_allclose(one.saliency, other.saliency, atol=tolerance)


def test_a_torchvision_model(device, tolerance, pictures):
    for name in ("squeezenet1_1", "resnet18"):
        torch.manual_seed(0)
        net = load_model(name, "random")
        ours, theirs = (SESS(net, num_scales=1, device=where).explain(pictures[:1])[0][0] for where in (device, "cpu"))
        np.testing.assert_allclose(ours.saliency, theirs.saliency, atol=10 * tolerance)
