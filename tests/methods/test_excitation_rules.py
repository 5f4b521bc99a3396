"""The rules of excitation backprop against values by hand, literal float64 loops and zennit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sess_ray.methods.excitation import Excitation
from tests import nets
from tests.methods.excitement import METHOD, Vgg, prepared, random


def down(function, x, p):
    """Return what the rule of a function makes of the probabilities of its outputs."""
    x = x.float().clone().requires_grad_()
    with Excitation() as excitation:
        y = function(x.clone())
    assert excitation.reason() is None
    return torch.autograd.grad(y, x, p.float())[0].double()


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
