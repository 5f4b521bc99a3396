"""Excitation backprop of whole models: the layer, batches, odd values, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sess_ray
from sess_ray import SessError, methods
from sess_ray.methods.excitation import Excitation, excitation_backprop, middle_layer
from tests import nets
from tests.methods.excitement import METHOD, Vgg, prepared


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Identity()
        self.late = nn.Conv2d(6, 6, 8)
        self.classes = nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.stem(x))
        out = self.inner(x)
        out += x
        x = self.block(self.relu(out))
        return self.classes(self.relu(self.late(x)).flatten(1))


def test_the_layer_is_on_all_ways():
    model = prepared(Residual(), "block")
    assert middle_layer(model) == "block"
    patches, targets = nets.patches(2), torch.tensor([0, 3])
    assert torch.equal(
        METHOD.function(model, patches, targets), METHOD.function(model, patches, targets, layer="block")
    )
    assert METHOD.function(model, patches, targets, layer="stem").shape == (2, 8, 8)
    with pytest.raises(SessError, match="ways to the logits lead past layer 'inner'"):
        METHOD.function(model, patches, targets, layer="inner")
    with pytest.raises(SessError, match="'relu' gives no grid of positions, or more than once"):
        METHOD.function(model, patches, targets, layer="relu")
    with pytest.raises(SessError, match="unknown layer 'steam': choose one of: block, "):
        METHOD.function(model, patches, targets, layer="steam")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("squeezenet1_1", "features.7"),
        ("resnet50", "layer3"),
        ("timm/resnet18", "layer3"),
        pytest.param("vgg16", "features.29", marks=pytest.mark.slow),
        ("googlenet", "inception4e"),
    ],
)
def test_layers_of_known_models(name, layer):
    model = sess_ray.load_model(name, "random").prepared(torch.device("cpu"), "fp32")
    assert middle_layer(model) == layer
    assert METHOD.refusal(model) is None


def test_a_map_for_each_class_of_a_trained_model(lite0, photographs):
    model = lite0.prepared(torch.device("cpu"), "fp32")
    assert METHOD.refusal(model) is None
    assert middle_layer(model) == "blocks.5.0.bn1"
    pixels = torch.tensor(photographs["chelsea.png"]).permute(2, 0, 1)[None].float() / 255
    patch = F.interpolate((pixels - 0.5) / 0.5, size=(224, 224), mode="bilinear")
    maps = METHOD.function(model, patch.expand(2, -1, -1, -1), torch.tensor([285, 609]))
    assert maps.shape == (2, 14, 14)
    assert (maps.sum((1, 2)) > 0.05).all()  # depthwise convolutions lose much: few inputs, seldom a positive one
    cat, other = maps / maps.sum((1, 2), keepdim=True)
    # Without a contrast to the other classes most of the map is what excites any class: measured 0.053.
    assert (cat - other).abs().sum() > 0.03
    assert cat[3:13, 3:11].sum() > 1.3 * 80 / 196  # the face


def test_a_patch_alone_and_among_others():
    model = prepared(Vgg(bias=True), "trunk")
    patches, targets = nets.patches(3), torch.tensor([1, 2, 3])
    together = METHOD.function(model, patches, targets)
    for i in range(3):
        alone = METHOD.function(model, patches[i : i + 1], targets[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_nan_on_constant_patches(squeezenet, value):
    for model in (prepared(Vgg(bias=False), "trunk"), squeezenet.prepared(torch.device("cpu"), "fp32")):
        patches = torch.full((1, 3, model.input_size, model.input_size), value)
        for dead in (False, True):
            if dead:
                model.module.get_parameter("head.0.weight" if model.name == "Vgg" else "classifier.1.weight").zero_()
            found = METHOD.function(model, patches, torch.tensor([0]))
            assert found.isfinite().all()
            assert not dead or not found.any()


def test_half_precision_is_close():
    module = Vgg(bias=True)
    full, half = (
        sess_ray.load_model(module, layer="trunk", input_size=nets.SIDE).prepared(torch.device("cpu"), precision)
        for precision in ("fp32", "bf16")
    )
    patches, targets = nets.patches(2), torch.tensor([0, 1])
    expected = METHOD.function(full, patches, targets)
    found = METHOD.function(half, patches.bfloat16(), targets)
    assert found.dtype == torch.float32
    assert (found - expected).abs().sum((1, 2)).max() < 0.1 * expected.sum((1, 2)).min()


def test_the_model_is_left_as_it_was():
    model, _ = nets.small()
    patches, targets = nets.patches(3), torch.tensor([3, 0, 4])
    state = {name: value.clone() for name, value in model.module.state_dict().items()}

    def gradients():
        tap = model.tap(patches)
        return (
            tap.logits,
            tap.gradients(targets),
            methods.get("gradient").function(model, patches, targets),
        )

    before = gradients()
    first = METHOD.function(model, patches, targets)
    between = gradients()
    assert torch.equal(METHOD.function(model, patches, targets), first)
    for values in zip(before, between, gradients(), strict=True):
        assert torch.equal(values[0], values[1])
        assert torch.equal(values[0], values[2])
    assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())
    assert not any(module._forward_hooks for module in model.module.modules())
    with pytest.raises(RuntimeError):
        METHOD.function(model, patches[:, :2], targets)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_values_are_those_of_the_model(squeezenet):
    patches = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    module = squeezenet.prepared(torch.device("cpu"), "fp32").module
    expected = module(patches)
    with Excitation():
        assert torch.equal(module(patches.clone().requires_grad_()), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/vit_tiny_patch16_224", "it has attention, for which excitation backprop has no rule"),
        ("swin_t", "it has attention, for which excitation backprop has no rule"),
        ("convnext_tiny", "it has layer norms, for which excitation backprop has no rule"),
        ("efficientnet_b0", "it has SiLU units, and excitation backprop needs non-negative activations (ReLU)"),
        ("regnet_y_400mf", "excitation backprop has no rule for its sigmoid"),
    ],
)
def test_refusals(name, reason):
    model = sess_ray.load_model(name, "random").prepared(torch.device("cpu"), "fp32")
    assert METHOD.refusal(model) == reason


class Unruly(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.cells = nn.Conv2d(3, 4, 4, stride=4)
        self.late = nn.Conv2d(4, 4, 5, stride=4)
        self.last = last

    def forward(self, x):
        return self.last(self.late(self.cells(x))).flatten(1)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (nn.GELU(), "GELU units, .* non-negative activations"),
        (nn.LeakyReLU(0.1), "leaky ReLU units"),
        (torch.sin, "no rule for its sin"),
        (lambda x: -1 * x, "no rule for its r?mul"),
        (lambda x: x * x.mean(), "no rule for its mul"),
        (lambda x: x + x[:, :1], "no rule for its add"),
        (torch.detach, "its logits have no gradient"),
    ],
)
def test_units_without_a_rule_are_named(last, reason):
    model = sess_ray.load_model(Unruly(nn.Identity()), layer="cells", input_size=nets.SIDE)
    model = replace(model, module=Unruly(last)).prepared(torch.device("cpu"), "fp32")
    assert re.search(reason, METHOD.refusal(model))
    with pytest.raises(SessError, match=reason):
        excitation_backprop(model, nets.patches(1), torch.tensor([0]))
