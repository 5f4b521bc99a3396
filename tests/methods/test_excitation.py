"""Excitation backprop against values by hand, literal float64 loops and zennit."""

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

METHOD = methods.get("excitation_backprop")


def prepared(module, layer, size=nets.SIDE):
    return sess_ray.load_model(module, layer=layer, input_size=size).prepared(torch.device("cpu"), "fp32")


def down(function, x, p):
    """Return what the rule of a function makes of the probabilities of its outputs."""
    x = x.float().clone().requires_grad_()
    with Excitation() as excitation:
        y = function(x.clone())
    assert excitation.reason() is None
    return torch.autograd.grad(y, x, p.float())[0].double()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class ByHand(nn.Module):
    """Two channels of 2 x 2 positions, two hidden units, two classes; the biases must not count."""

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 2, 1, bias=False)
        self.cells.weight.data = torch.eye(2, 3).view(2, 3, 1, 1)
        self.hidden = nn.Linear(8, 2)
        self.hidden.weight.data = torch.tensor([[1.0, -1, 2, 5, 2, 1, 0, 1], [0, 1, 0, 0, 0, 0, 3, -1]])
        self.hidden.bias.data = torch.tensor([0.0, 1])
        self.classes = nn.Linear(2, 2)
        self.classes.weight.data = torch.tensor([[1.0, 2], [-1, 1]])
        self.classes.bias.data = torch.tensor([100.0, -100])

    def forward(self, x):
        x = F.relu(self.cells(x), inplace=True).flatten(1)
        return self.classes(self.hidden(x).relu_())


def test_two_layers_by_hand():
    patch = torch.tensor([[[1.0, 2], [0, -1]], [[3, 0], [1, 1]], [[9, 9], [9, 9]]])[None]
    # Unit 0 gets 1 * 1 + 3 * 2 at the first position and 1 * 1 at the last; unit 1 gets 2 * 1 and 1 * 3.
    first, second = torch.tensor([[7 / 8, 0], [0, 1 / 8]]), torch.tensor([[0, 2 / 5], [3 / 5, 0]])
    # The units are 6 and 2 + 3 - 1 + 1 = 5, so class 0 has 6 * 1 from unit 0 and 5 * 2 from unit 1.
    expected = torch.stack([6 / 16 * first + 10 / 16 * second, second])
    model = prepared(ByHand(), "cells", 2)
    found = METHOD.function(model, patch.expand(2, -1, -1, -1), torch.tensor([0, 1]))
    torch.testing.assert_close(found, expected)


def test_convolution_is_its_definition():
    x, w = random(2, 3, 7, 6).clamp(min=0), random(4, 3, 3, 2, seed=1)
    p = random(2, 4, 4, 4, seed=2).abs()
    padded = F.pad(x, (1, 1, 1, 1))
    expected = torch.zeros_like(padded)
    for n, k, i, j in torch.cartesian_prod(*map(torch.arange, p.shape)).tolist():
        window = (n, slice(None), slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 2))
        parts = padded[window] * w[k].clamp(min=0)
        if parts.sum() > 0:
            expected[window] += parts / parts.sum() * p[n, k, i, j]
    bias = random(4, seed=3).float()
    found = down(lambda x: F.conv2d(x, w.float(), bias, stride=2, padding=1), x, p)
    torch.testing.assert_close(found, expected[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-5)


def test_depthwise_convolution_keeps_channels_apart():
    x, w, p = random(1, 4, 5, 5).clamp(min=0), random(4, 1, 3, 3, seed=1), random(1, 4, 5, 5, seed=2).abs()
    found = down(lambda x: F.conv2d(x, w.float(), padding=1, groups=4), x, p)
    for k in range(4):
        one = slice(k, k + 1)
        alone = down(lambda x, one=one: F.conv2d(x, w[one].float(), padding=1), x[:, one], p[:, one])
        torch.testing.assert_close(found[:, one], alone)


@pytest.mark.parametrize("kind", ["average", "maximum"])
def test_pools_are_their_definitions(kind):
    x, p = random(2, 3, 7, 7).clamp(min=0), random(2, 3, 3, 3, seed=1).abs()
    expected = torch.zeros_like(x)
    for n, k, i, j in torch.cartesian_prod(*map(torch.arange, p.shape)).tolist():
        window = (n, k, slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3))
        if kind == "average":
            expected[window] += x[window] / x[window].sum() * p[n, k, i, j]
        else:
            y, z = divmod(int(x[window].argmax()), 3)
            expected[n, k, 2 * i + y, 2 * j + z] += p[n, k, i, j]
    pool = F.avg_pool2d if kind == "average" else F.max_pool2d
    torch.testing.assert_close(down(lambda x: pool(x, 3, 2), x, p), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mean", [lambda x: x.mean((2, 3)), lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)])
def test_global_means_share_by_value(mean):
    x, p = random(2, 3, 4, 4).clamp(min=0), random(2, 3, seed=1).abs()
    torch.testing.assert_close(down(mean, x, p), x / x.sum((2, 3), keepdim=True) * p[..., None, None])


def _in_place(x):
    y = 3 * x
    y += x
    return y


@pytest.mark.parametrize("add", [lambda x: torch.add(x, 3 * x), lambda x: x + x * 3, _in_place])
def test_a_sum_is_split_in_proportion(add):
    x = torch.tensor([[1.0, 0, 2]]).double()
    # Both terms are the same unit, so all returns to it: except to the one that is zero.
    torch.testing.assert_close(down(add, x, torch.ones(1, 3)), torch.tensor([[1.0, 0, 1]]).double())


def test_a_skip_by_hand():
    x = torch.tensor([[4.0, 2]])
    # Terms: unit 0 has 4 + 2 * 3, unit 1 has 2 + 0 (its weight is negative, the rectifier makes it 0).
    weight = torch.tensor([[0.0, 3], [-1, 0]])
    p = torch.tensor([[0.5, 0.5]])
    expected = torch.tensor([[0.5 * 4 / 10, 0.5 * 6 / 10 + 0.5]]).double()
    for skip in (lambda x: x + F.relu(F.linear(x, weight)), lambda x: F.relu_(F.linear(x, weight)).add_(x)):
        torch.testing.assert_close(down(skip, x, p), expected)


def test_concatenations_rectifiers_norms_and_constants_hand_through():
    x, p = random(1, 2, 3, 3), random(1, 4, 3, 3, seed=1).abs()
    norm = nn.BatchNorm2d(4).eval().requires_grad_(False)
    norm.bias.data.fill_(-3)

    def function(x):
        x = norm(torch.cat([F.relu6(x), x.relu() + 1], 1))
        return F.hardtanh(F.dropout(x / 2, 0.5, training=False), 0.0, 6.0, inplace=True)

    torch.testing.assert_close(down(function, x, p), p[:, :2] + p[:, 2:], atol=1e-6, rtol=1e-6)


class Vgg(nn.Module):
    """Modules alone, as zennit wants them. Without biases each live unit has a positive input."""

    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(6)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.head = nn.Sequential(
            nn.Conv2d(8, 10, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 12, 3, stride=2, bias=bias),
            nn.ReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(12, 6, bias=bias),
            nn.ReLU(),
            nn.Linear(6, 4, bias=bias),
        )

    def forward(self, x):
        return self.head(self.trunk(x))


def test_probability_is_conserved_without_biases():
    model = prepared(Vgg(bias=False), "trunk")
    patches = nets.patches(4)
    for layer in ("", "trunk", "head.2"):
        maps = METHOD.function(model, patches, torch.tensor([0, 1, 2, 3]), layer=layer)
        assert maps.min() >= 0
        torch.testing.assert_close(maps.sum((1, 2)), torch.ones(4))


def test_probability_is_lost_where_the_bias_alone_excites():
    module = ByHand()
    module.hidden.weight.data[1] = -1.0
    module.hidden.bias.data[1] = 5 + 8
    patch = torch.tensor([[[1.0, 2], [0, -1]], [[3, 0], [1, 1]], [[9, 9], [9, 9]]])[None]
    model = prepared(module, "cells", 2)
    # The units are 6 and 13 - 8 = 5; the second hands nothing on.
    found = METHOD.function(model, patch.expand(2, -1, -1, -1), torch.tensor([0, 1]))
    torch.testing.assert_close(found.sum((1, 2)), torch.tensor([6 / 16, 0]))


@pytest.mark.parametrize("bias", [True, False])
def test_zennit_agrees(bias):
    composites = pytest.importorskip("zennit.composites", reason="zennit is a second oracle: pip install zennit")
    module = Vgg(bias).eval()
    patches, targets = nets.patches(3), torch.tensor([0, 3, 1])
    found = METHOD.function(prepared(module, "trunk"), patches, targets, layer="trunk")
    exact = module.double()
    with composites.ExcitationBackprop(stabilizer=1e-12, zero_params=["bias"]).context(exact.head) as head:
        activations = exact.trunk(patches.double()).detach().requires_grad_()
        wanted = F.one_hot(targets, 4).double()
        (expected,) = torch.autograd.grad(head(activations.clone()), activations, wanted)
    torch.testing.assert_close(found.double(), expected.sum(1), atol=1e-6, rtol=1e-4)


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
    with pytest.raises(SessError, match="'relu' gives no square grid of positions, or more than once"):
        METHOD.function(model, patches, targets, layer="relu")
    with pytest.raises(SessError, match="unknown layer 'steam': choose one of: block, "):
        METHOD.function(model, patches, targets, layer="steam")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("squeezenet1_1", "features.7"),
        ("resnet50", "layer3"),
        ("timm/resnet18", "layer3"),
        ("vgg16", "features.29"),
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
