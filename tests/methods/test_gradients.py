"""Family B, and cam, against closed forms and literal float64 versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sess_ray
from sess_ray import SessError, methods
from sess_ray.methods.gradients import attributions
from tests import nets

TARGETS = torch.tensor([3, 0, 4])


def run(name, model, patches, targets=TARGETS, **options):
    return methods.get(name).function(model, patches, targets, **options)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.cells = nn.Conv2d(3, 3, 1, bias=False)
        self.classes = nn.Linear(3 * nets.SIDE**2, 5)

    def forward(self, x):
        return self.classes(self.cells(x).flatten(1))

    def weights(self, target):
        """d(logit)/dx, (3, h, w)."""
        last = self.classes.weight[target].view(3, nets.SIDE, nets.SIDE)
        return torch.einsum("dhw,dc->chw", last, self.cells.weight[:, :, 0, 0]).detach()


@pytest.fixture(scope="module")
def linear():
    return sess_ray.load_model(Linear(), layer="cells", input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")


def test_the_gradient_of_a_linear_model_is_its_weights(linear):
    found = run("gradient", linear, nets.patches(3))
    expected = torch.stack([linear.module.weights(target).abs().amax(0) for target in TARGETS])
    torch.testing.assert_close(found, expected)


def test_integrated_gradients_of_a_linear_model_are_weights_times_the_patch(linear):
    patches = nets.patches(3)
    expected = torch.stack(
        [(linear.module.weights(target) * patch).abs().sum(0) for target, patch in zip(TARGETS, patches, strict=True)]
    )
    torch.testing.assert_close(run("integrated_gradients", linear, patches, steps=2), expected)


@pytest.mark.slow
def test_integrated_gradients_are_complete():
    model, module = nets.small()
    patches, baseline = nets.patches(3), nets.patches(3, seed=9)
    found = attributions(model, patches, TARGETS, baseline, 300).sum((1, 2, 3))
    with torch.no_grad():
        logits = module(patches.double()) - module(baseline.double())
    torch.testing.assert_close(found.double(), logits.gather(1, TARGETS[:, None])[:, 0], atol=5e-3, rtol=1e-2)
    # The method's own baseline is zero, the mean colour.
    zero = attributions(model, patches, TARGETS, torch.zeros_like(patches), 25).abs().sum(1)
    torch.testing.assert_close(run("integrated_gradients", model, patches, steps=25), zero)


def test_smoothgrad_without_noise_is_the_gradient():
    model, _ = nets.small()
    patches = nets.patches(3)
    found = run("smoothgrad", model, patches, samples=3, std=0.0, generators=nets.generators(3))
    torch.testing.assert_close(found, run("gradient", model, patches))
    squared = run("smoothgrad", model, patches, samples=2, std=0.0, average="squared", generators=nets.generators(3))
    torch.testing.assert_close(squared, run("gradient", model, patches).square())


@pytest.mark.parametrize(
    ("average", "of"), [("signed", lambda g: g), ("absolute", torch.abs), ("squared", torch.square)]
)
def test_smoothgrad_is_the_mean_over_noisy_copies(average, of):
    model, module = nets.small()
    patches = nets.patches(3)
    options = {"samples": 4, "std": 0.2, "average": average}
    found = run("smoothgrad", model, patches, generators=nets.generators(3, seed=5), **options)
    for patch, target, generator, one in zip(patches, TARGETS, nets.generators(3, seed=5), found, strict=True):
        total = torch.zeros(3, nets.SIDE, nets.SIDE, dtype=torch.float64)
        for _ in range(4):
            noise = nets.noise(generator)
            copy = (patch + 0.2 * (patch.max() - patch.min()) * noise).double().requires_grad_()
            total += of(torch.autograd.grad(module(copy[None])[0, target], copy)[0]) / 4
        torch.testing.assert_close(one.double(), total.abs().amax(0), atol=1e-5, rtol=1e-4)


def test_smoothgrad_says_what_became_of_an_option():
    with pytest.raises(SessError, match="smoothgrad has no option 'squared' any more: use average=squared"):
        methods.get("smoothgrad").parsed({"squared": "true"})


@pytest.mark.slow
def test_the_rules_of_integrated_gradients_meet_and_the_midpoint_is_nearer():
    model, _ = nets.small()
    patches = nets.patches(3)
    exact = run("integrated_gradients", model, patches, steps=400)
    errors = [
        (run("integrated_gradients", model, patches, steps=steps, rule=rule) - exact).abs().max()
        for rule, steps in (("midpoint", 20), ("linspace", 20), ("linspace", 200))
    ]
    assert errors[0] < errors[1]
    assert errors[2] < errors[1] / 4


class Rectified(nn.Module):
    """Linear maps with rectifiers between: a module in place, a function, a method, ReLU6."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.cells = nn.Conv2d(3, 2, 4, stride=4)
        self.maps = nn.ModuleList([nn.Linear(2 * 8 * 8, 20), nn.Linear(20, 20), nn.Linear(20, 20)])
        self.rectifier = nn.ReLU(inplace=True)
        self.last = nn.Linear(20, 5)

    def forward(self, x):
        x = self.rectifier(self.cells(x)).flatten(1)
        x = F.relu(self.maps[0](x), inplace=True)
        x = self.maps[1](x).relu()
        return self.last(F.relu6(2 * self.maps[2](x)))


def guided_by_hand(module, patch, target):
    """Return the guided gradient, step by step in float64: (3, h, w)."""
    w = [layer.weight for layer in module.maps]
    z0 = module.cells(patch[None])[0]
    values = [z0.clamp(min=0).flatten()]
    inputs = []
    for layer, factor in zip(module.maps, (1, 1, 2), strict=True):
        inputs.append(factor * layer(values[-1]))
        values.append(inputs[-1].clamp(0, 6 if factor == 2 else None))
    g = module.last.weight[target]
    g = torch.where((inputs[2] > 0) & (inputs[2] < 6) & (g > 0), g, 0.0) * 2 @ w[2]
    for i in (1, 0):
        g = torch.where((inputs[i] > 0) & (g > 0), g, 0.0) @ w[i]
    g = torch.where((z0.flatten() > 0) & (g > 0), g, 0.0).view_as(z0)
    return F.conv_transpose2d(g[None], module.cells.weight, stride=4)[0]


def test_guided_backprop_is_guided_on_the_second_call_as_on_the_first():
    model = sess_ray.load_model(Rectified(), layer="cells", input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")
    exact = Rectified().double()
    patches = nets.patches(3)
    plain = run("gradient", model, patches)
    with torch.no_grad():
        by_hand = torch.stack([guided_by_hand(exact, p, t) for p, t in zip(patches.double(), TARGETS, strict=True)])
    expected = by_hand.abs().sum(1)
    limit = np.percentile(expected.flatten(1).numpy(), 99, axis=1)
    expected = torch.minimum(expected, torch.from_numpy(limit).view(3, 1, 1))
    for _ in range(2):
        found = run("guided_backprop", model, patches)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-4)
    largest = run("guided_backprop", model, patches, channels="max", percentile=100.0)
    torch.testing.assert_close(largest.double(), by_hand.abs().amax(1), atol=1e-6, rtol=1e-4)
    assert not torch.allclose(plain, largest)
    assert torch.equal(run("gradient", model, patches), plain)  # nothing is left behind


def test_guided_backprop_needs_rectifiers(linear):
    with pytest.raises(SessError, match=r"guided_backprop cannot explain Linear: it has no ReLU-like.*can: gradcam, "):
        methods.require(methods.get("guided_backprop"), linear)


def test_cam_is_the_classifiers_weights(lite0):
    model = lite0.prepared(torch.device("cpu"), "fp32")
    patches = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    classes = torch.tensor([281, 7])
    tap = model.tap(patches)
    gradients = tap.gradients(classes)
    expected = torch.einsum("nk,nkuv->nuv", model.module.classifier.weight[classes].double(), tap.activations.double())
    found = methods.get("cam").function(tap.activations, gradients) * 49  # positions
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert (found < 0).any()
    rectified = methods.get("cam").function(tap.activations, gradients, relu=True)
    torch.testing.assert_close(rectified, methods.get("gradcam").function(tap.activations, gradients))
    assert methods.get("cam").refusal(model) is None


@pytest.mark.slow
def test_cam_refuses_other_heads(squeezenet):
    prepared = squeezenet.prepared(torch.device("cpu"), "fp32")
    with pytest.raises(SessError, match=r"cam cannot explain squeezenet1_1: .* not a global mean .*; .* gradcam,"):
        methods.require(methods.get("cam"), prepared)
