"""The fused scoring pass gives what the plain one gives, and leaves alone what it cannot take."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sess_ray
from sess_ray.models.onednn import TAP

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def layers(module):
    return [type(layer).__name__ for layer in module.modules()]


def scores(module, dtype=torch.float32, count=3, side=96):
    patches = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return module(patches.to(dtype).contiguous(memory_format=torch.channels_last)).float()


# How many convolutions there are, and batch norms that stay: most of densenet's stand before their convolution.
@pytest.mark.parametrize(
    ("name", "convolutions", "norms"),
    [
        ("squeezenet1_1", 26, 0),
        ("resnet18", 20, 0),
        ("densenet121", 120, 62),
        ("mobilenet_v3_small", 52, 0),
        ("efficientnet_b0", 81, 0),
        ("lite0", 49, 0),
    ],
)
def test_scores_are_those_of_the_plain_model(name, convolutions, norms, request):
    model = request.getfixturevalue(name) if name == "lite0" else sess_ray.load_model(name, "random")
    model = model.prepared(CPU, "fp32")
    found = layers(model.fused)
    assert found.count("_Convolution") + found.count("Conv2dSame") == convolutions
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.fused.modules()) == norms
    expected = scores(model.module)
    share = expected.abs().max()
    assert (scores(model.fused) - expected).abs().max() < 1e-5 * share
    half = sess_ray.load_model(model).prepared(CPU, "bf16")
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # the processor lacks the instructions
        assert half.fused is None
        return
    error, plain = ((scores(one, torch.bfloat16) - expected).abs().max() for one in (half.fused, half.module))
    assert error < 2 * plain + 1e-3 * share


def test_all_sums_of_resnet_are_taken_in():
    model = sess_ray.load_model("resnet18", "random").prepared(CPU, "fp32")
    calls = [node for node in model.fused.graph.nodes if node.op == "call_module" and len(node.args) == 2]
    assert len(calls) == 8
    assert {node.op for node in model.fused.graph.nodes} == {"placeholder", "call_module", "call_function", "output"}
    assert [node.name for node in model.fused.graph.nodes if node.op == "call_function"] == ["flatten"]


def test_it_is_pickled_and_copied():
    model = sess_ray.load_model("squeezenet1_1", "random").prepared(CPU, "fp32")
    expected = scores(model.fused)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(scores(again.fused), expected)


class Net(nn.Module):
    """Two convolutions, joined by what is to be tried."""

    def __init__(self, join):
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.last = nn.Conv2d(8, 8, 1)
        self.shift = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.head = nn.Linear(8, 5)
        self.join = join
        self.calls = 0
        for buffer in (self.norm.running_mean, self.norm.running_var):
            nn.init.uniform_(buffer, 0.5, 2)

    def forward(self, x):
        joined, skip = self.join(self, self.stem(x))
        self.calls += 1
        return self.head((self.last(joined) + skip).mean((2, 3)))


def needed_twice(net, x):
    y = net.body(x)
    return y.relu(), y


def doubled(net, x):
    y = net.body(x)
    return y + y, 0


def summand_needed(net, x):
    y = net.norm(x)
    return net.body(x) + y, y


def added_in_place(net, x):
    y = x * 1
    y += net.body(x)
    return y, y


JOINS = {
    "what is added is needed later": lambda net, x: (net.body(x) + x, x),
    "the summand is needed later": summand_needed,
    "the result is needed twice": needed_twice,
    "normed and summed": lambda net, x: (F.relu(x + net.norm(net.body(x))), 0),
    "the sum is of other sizes": lambda net, x: (net.body(x) + net.stem.bias.view(1, -1, 1, 1), net.shift),
    "doubled": doubled,
    "weighted sum": lambda net, x: (torch.add(net.body(x), net.norm(x), alpha=3), 0),
    "mirrored border": lambda net, x: (F.relu(net.norm(net.mirrored(x))), 0),
    "one layer twice": lambda net, x: (F.silu(net.body(F.relu6(net.body(40 * x)))), 0),
    "added in place": added_in_place,
    "summed with a view": lambda net, x: (net.body(x) + x.view(x.shape), x.flatten(2).view(x.shape)),
}


@pytest.mark.parametrize("join", JOINS, ids=JOINS)
@pytest.mark.parametrize("layer", ["last", "body", "stem"])
def test_odd_ways_through_a_module(join, layer):
    module = Net(JOINS[join]).eval()
    if (join, layer) == ("mirrored border", "body"):
        layer = "mirrored"
    model = sess_ray.load_model(module, input_size=32, layer=layer).prepared(CPU, "fp32")
    assert model.fused is not None
    patches = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 4])
    found, expected = (one.tap(patches) for one in (model, replace(model, original=None)))
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.activations, expected.activations)
    torch.testing.assert_close(found.gradients(classes), expected.gradients(classes))


@pytest.mark.parametrize(
    "join",
    [
        lambda net, x: (x if x.mean() > 0 else net.body(x), 0),  # depends on the pixels
        lambda net, x: (net.body(x) * net.calls, 0),  # does not give the same twice
    ],
)
def test_what_can_not_be_fused_is_scored_as_it_is(join):
    model = sess_ray.load_model(Net(join).eval(), input_size=32, layer="stem").prepared(CPU, "fp32")
    assert model.fused is None
    assert model.scorer is model.module


def test_transformers_score_the_same():
    model = sess_ray.load_model("vit_b_32", "random").prepared(CPU, "fp32")
    wanted = scores(model.module, side=224)
    assert wanted.std() > 0.05
    torch.testing.assert_close(scores(model.scorer, side=224), wanted, atol=1e-5, rtol=1e-5)
    assert model.fused is None or TAP in dict(model.fused.named_modules())
