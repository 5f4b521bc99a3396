"""The methods against other libraries' versions of them, where the definitions are the same.

Left out, because the definitions differ (beside methods that these libraries do not have):
- torch-cam's Grad-CAM++ (0.5): its division by the denominator acts on a copy, so that alpha stays g^2.
- torch-cam's Smooth Grad-CAM++ and SS-CAM: noise of their own generator, and the same in-place division or noise that
  is added in another place.
- Score-CAM where the layer is coarser than the patch: torch-cam takes min-max before it enlarges, pytorch-grad-cam
  enlarges with align_corners=True. At a layer of the patch's size both agree with ours, given probabilities as outputs
  and our softmax over channels.
- SmoothGrad with noise: the generators differ; without noise it is the gradient.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sess_ray
from sess_ray import methods
from sess_ray.engine.scoring import of_layer
from tests import nets
from tests.methods.oracles import LAYER, TARGETS, Net, grad_cam, leaf, oracle, same, with_sign


@pytest.fixture(scope="module")
def model():
    return sess_ray.load_model(Net(), layer=LAYER, input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def patches():
    return nets.patches(3)


@pytest.fixture(scope="module")
def real(lite0, photographs):
    """A trained model, a photograph's middle and its class."""
    pixels = torch.tensor(photographs["chelsea.png"]).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, size=(lite0.input_size,) * 2, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (lite0.mean, lite0.std))
    return lite0.prepared(torch.device("cpu"), "fp32"), (pixels - mean) / std, torch.tensor([285])


def ours(name, model, patches, targets, **options):
    method = methods.get(name)
    tap = model.tap(patches)
    if method.family != "T":
        if "activations" in method.given:
            options["activations"] = tap.activations
        if "same_as" in method.given:
            options["same_as"] = torch.arange(len(patches))
        return method.function(model, patches, targets, **options)
    return method.function(*of_layer(tap, targets, slice(None), method.looks_at).values(), **options)


def captum_gradcam(model, patches, targets):
    attribution = oracle("captum.attr").LayerGradCam(model.module, model.module.get_submodule(model.layer))
    return attribution.attribute(leaf(patches), target=targets, relu_attributions=True)[:, 0]


def torchcam_gradcam(model, patches, targets, name="GradCAM", **options):
    kind = getattr(oracle("torchcam.methods"), name)
    with kind(model.module, model.layer, input_shape=tuple(patches.shape[1:]), **options) as extractor:
        scores = model.module(leaf(patches))
        return extractor(targets.tolist(), scores, normalized=False)[0]


def torchcam_cam(model, patches, targets):
    return torchcam_gradcam(model, patches, targets, "CAM", fc_layer="classifier")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("gradcam", captum_gradcam),
        ("gradcam", torchcam_gradcam),
        ("gradcam", grad_cam("GradCAM")),
        ("gradcam++", grad_cam("GradCAMPlusPlus")),
        ("hirescam", grad_cam("HiResCAM")),
        ("xgradcam", grad_cam("XGradCAM")),
        ("layercam", grad_cam("LayerCAM")),
    ],
)
def test_class_activation_maps(name, other, model, patches):
    # pytorch-grad-cam adds 1e-6 to the denominators of Grad-CAM++.
    atol = 2e-4 if name == "gradcam++" else 1e-5
    same(ours(name, model, patches, TARGETS), other(model, patches, TARGETS), atol)


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_principal_components_of_grad_cam(name, model, patches):
    # pytorch-grad-cam leaves the sign to the decomposition.
    library = oracle("pytorch_grad_cam.utils.svd_on_activations")
    tap = model.tap(patches)
    values = tap.activations * (tap.gradients(TARGETS) if name == "eigengradcam" else 1)
    centred = values - values.mean((2, 3), keepdim=True)
    expected = with_sign(library.get_2d_projection(values.numpy()), centred.mean(1).numpy())
    same(ours(name, model, patches, TARGETS, centred=True), expected, atol=1e-4)


def test_fem_of_grad_cam(model, patches):
    same(ours("fem", model, patches, TARGETS, maps="activations"), grad_cam("FEM")(model, patches, TARGETS))


def torchcam_named(name):
    return lambda model, patches, targets: torchcam_gradcam(model, patches, targets, name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("gradcam", captum_gradcam),
        ("gradcam", torchcam_gradcam),
        ("cam", torchcam_cam),
        ("xgradcam", torchcam_named("XGradCAM")),
        ("layercam", torchcam_named("LayerCAM")),
    ],
)
def test_class_activation_maps_of_a_trained_model(name, other, real):
    same(ours(name, *real), other(*real), atol=1e-4)


def test_scorecam_of_torchcam(model, patches):
    library = oracle("torchcam.methods")
    probabilities = nn.Sequential(model.module, nn.Softmax(1))
    with library.ScoreCAM(probabilities, f"0.{LAYER}", input_shape=(3, nets.SIDE, nets.SIDE)) as extractor:
        probabilities(patches)
        expected = extractor(TARGETS.tolist(), normalized=False)[0]
    found = ours("scorecam", model, patches, TARGETS, batch_size=4, softmax=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_scorecam_of_grad_cam(model, patches):
    found = ours("scorecam", model, patches, TARGETS, batch_size=4, softmax=True)
    same(found, grad_cam("ScoreCAM", lambda logits: logits.softmax(0))(model, patches, TARGETS))


@pytest.mark.parametrize("name", ["gradient", "smoothgrad"])
def test_gradients(name, model, patches):
    options = {"samples": 2, "std": 0.0, "generators": nets.generators(3)} if name == "smoothgrad" else {}
    expected = oracle("captum.attr").Saliency(model.module).attribute(leaf(patches), target=TARGETS).amax(1)
    torch.testing.assert_close(ours(name, model, patches, TARGETS, **options), expected)


def test_gradient_of_a_trained_model(real):
    model, patches, targets = real
    expected = oracle("captum.attr").Saliency(model.module).attribute(leaf(patches), target=targets).amax(1)
    torch.testing.assert_close(ours("gradient", *real), expected)


def captum_guided(module, patches):
    return oracle("captum.attr").GuidedBackprop(module).attribute(leaf(patches), target=TARGETS)


def zennit_guided(module, patches):
    composite = oracle("zennit.composites").GuidedBackprop()
    with oracle("zennit.attribution").Gradient(module, composite) as attributor:
        return attributor(patches, F.one_hot(TARGETS, 5).float())[1]


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("other", [captum_guided, zennit_guided])
def test_guided_backprop(other, model, patches):
    expected = other(model.module, patches).abs()
    largest = ours("guided_backprop", model, patches, TARGETS, channels="max", percentile=100.0)
    torch.testing.assert_close(largest, expected.amax(1))
    expected = expected.sum(1)
    limits = np.percentile(expected.flatten(1).numpy(), 99, axis=1)
    expected = expected.minimum(torch.from_numpy(limits).float().view(-1, 1, 1))
    torch.testing.assert_close(ours("guided_backprop", model, patches, TARGETS), expected)


def test_integrated_gradients(model, patches):
    attribution = oracle("captum.attr").IntegratedGradients(model.module)
    expected = attribution.attribute(leaf(patches), 0.0, TARGETS, n_steps=7, method="riemann_middle").abs().sum(1)
    found = ours("integrated_gradients", model, patches, TARGETS, steps=7)
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_xrai_of_pair(photographs):
    side = 96  # segmented at 224
    library = oracle("saliency.core")
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(384, 5)
    )
    model = sess_ray.load_model(net, layer="1", input_size=side).prepared(torch.device("cpu"), "fp32")
    pixels = np.ascontiguousarray(photographs["chelsea.png"][60 : 60 + side, 120 : 120 + side])
    patch = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - 0.45) / 0.23

    def gradients(images, call_model_args, expected_keys):
        del call_model_args, expected_keys
        start = leaf(torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float())
        (found,) = torch.autograd.grad(model.module(start)[:, 3].sum(), start)
        return {library.INPUT_OUTPUT_GRADIENTS: found.permute(0, 2, 3, 1).numpy()}

    parameters = library.XRAIParameters(steps=4)
    image = patch[0].permute(1, 2, 0).numpy()
    expected = library.XRAI().GetMask(image, gradients, extra_parameters=parameters, batch_size=4)
    options = {"steps": 4, "baselines": "extremes", "rule": "linspace", "segment_at": "224"}
    found = ours("xrai", model, patch, torch.tensor([3]), **options)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
