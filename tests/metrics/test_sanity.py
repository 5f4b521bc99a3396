"""Sanity checks: what is re-initialised, and what the checks then find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sess_ray
from sess_ray import SESS, SessError
from sess_ray.metrics.sanity import (
    Similarity,
    parameter_randomisation,
    randomized,
    similarity,
    target_sensitivity,
)
from tests import nets

LAYERS = ["classes", "third", "second", "first"]  # of nets.Small, from the output downwards
KINDS = ["cascading", "independent"]


class Parts(nn.Module):
    """Layers with and without `reset_parameters`, with buffers, and a module that owns parameters around others."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 1)
            self.gain = nn.Parameter(torch.linspace(2, 3, 4).view(4, 1, 1))

        def reset_parameters(self):
            self.inner.reset_parameters()
            nn.init.uniform_(self.gain, 10, 11)

        def forward(self, x):
            return self.inner(x) * self.gain

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.block = self.Block()
        self.head = nn.Linear(4, 5)
        self.shift = nn.Parameter(torch.randn(400, 1, 1) * 3 + 100)
        self.steady = nn.Parameter(torch.ones(1))
        with torch.no_grad():
            for tensor in (self.norm.weight, self.norm.running_mean, self.norm.running_var):
                tensor.uniform_(2, 3)

    def forward(self, x):
        return self.head(self.block(self.norm(self.stem(x))).mean((2, 3))) + self.shift.mean() * self.steady


@pytest.fixture(scope="module")
def model():
    return nets.small()[0]


@pytest.fixture(scope="module")
def photograph(photographs):
    return np.asarray(Image.fromarray(photographs["chelsea.png"]).resize((224, 150)))


def state(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def changed(before, after):
    """Return the names of layers of which all weights are others, after checking that the rest is the same."""
    assert before.keys() == after.keys()
    layers = {name.rpartition(".")[0] for name in before}
    found = set()
    for layer in layers:
        equal = [torch.equal(before[name], after[name]) for name in before if name.rpartition(".")[0] == layer]
        assert len(set(equal)) == 1, layer
        if not equal[0]:
            found.add(layer)
    return found


def grad_cam(images, target):
    def explain(model):
        sess = SESS(model, num_scales=None, device="cpu")
        return [found.saliency for [found] in sess.explain(images, [[target]] * len(images))]

    return explain


def edges(images):
    """Return a method of explanation that asks no model."""

    def explain(_):
        greys = [image.mean(2) for image in images]
        return [np.hypot(*np.gradient(grey)) for grey in greys]

    return explain


def test_cascading_reaches_a_layer_and_all_above_it(model):
    before = state(model)
    found = list(randomized(model, "cascading"))
    assert [name for name, _ in found] == LAYERS
    for step, (_, other) in enumerate(found):
        assert changed(before, state(other)) == set(LAYERS[: step + 1])
        for earlier in found[:step]:
            ours, theirs = state(other), state(earlier[1])
            for layer in LAYERS[: found.index(earlier) + 1]:
                assert torch.equal(ours[f"{layer}.weight"], theirs[f"{layer}.weight"])


def test_independent_reaches_one_layer_with_the_same_weights(model):
    before = state(model)
    whole = state(list(randomized(model, "cascading"))[-1][1])
    for name, other in randomized(model, "independent"):
        after = state(other)
        assert changed(before, after) == {name}
        assert torch.equal(after[f"{name}.weight"], whole[f"{name}.weight"])
        assert torch.equal(after[f"{name}.bias"], whole[f"{name}.bias"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stays_as_it_is(model, kind):
    before, digest, module = state(model), model.weights_sha256(), model.module
    for _, other in randomized(model, kind):
        assert replace(other, module=module) == model  # the same layer, size, names ...
        assert other.module is not module
        assert (other.module.training, other.module.scale) == (module.training, module.scale)
        assert not any(parameter.requires_grad for parameter in other.module.parameters())
        with torch.no_grad():
            next(other.module.parameters()).fill_(7)
    assert model.module is module
    assert model.weights_sha256() == digest
    assert changed(before, state(model)) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_of_the_seed_alone(model, kind):
    torch.manual_seed(1)
    first = [other.weights_sha256() for _, other in randomized(model, kind, seed=5)]
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    second = [other.weights_sha256() for _, other in randomized(model, kind, seed=5)]
    assert torch.equal(torch.rand(3), expected)  # nobody has drawn in between
    assert first == second
    assert not {*first} & {other.weights_sha256() for _, other in randomized(model, kind, seed=6)}


def test_new_weights_are_those_of_an_initialisation(model):
    (_, other), *_ = randomized(model, "independent")
    weights = other.module.classes.weight
    # Linear: uniform within 1 / sqrt(6 inputs).
    assert weights.abs().max() <= 6**-0.5
    assert weights.std() == pytest.approx((3 * 6) ** -0.5, rel=0.3)


@pytest.mark.parametrize(
    ("steps", "places"),
    [(2, [0, 9]), (3, [0, 4, 9]), (4, [0, 3, 6, 9]), (5, [0, 2, 4, 7, 9]), (10, range(10)), (50, range(10))],
)
@pytest.mark.parametrize("kind", KINDS)
def test_some_of_many_layers(steps, places, kind):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), *(nn.Conv2d(4, 4, 1) for _ in range(9)), nn.AdaptiveAvgPool2d(1))
    model = sess_ray.load_model(
        nn.Sequential(module, nn.Flatten()), layer="0.9", input_size=nets.SIDE, activation="softmax"
    )
    found = list(randomized(model, kind, steps))
    names = [f"0.{9 - place}" for place in range(10)]
    assert [name for name, _ in found] == [names[place] for place in places]
    for place, (_, other) in zip(places, found, strict=True):
        expected = names[: place + 1] if kind == "cascading" else [names[place]]
        assert changed(state(model), state(other)) == set(expected)


def test_layers_of_all_kinds():
    model = sess_ray.load_model(Parts(), layer="block", input_size=nets.SIDE)
    before = model.module
    found = {name: other.module for name, other in randomized(model, "independent")}
    assert list(found) == ["head", "block.inner", "block", "norm", "stem", ""]
    for name, module in found.items():
        rest = {key for key, tensor in module.state_dict().items() if torch.equal(tensor, before.state_dict()[key])}
        assert {key for key in before.state_dict() if key.rpartition(".")[0] != name} <= rest
    # A block that resets what is in it: its own parameters alone are taken.
    assert ((found["block"].block.gain >= 10) & (found["block"].block.gain <= 11)).all()
    # A batch norm is as new.
    norm = found["norm"].norm
    for tensor, value in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
        assert torch.equal(tensor, torch.full((4,), float(value)))
    # Without `reset_parameters`: mean 0, and 400 numbers with a standard deviation of 3 again.
    assert found[""].shift.mean().item() == pytest.approx(0, abs=0.5)
    assert found[""].shift.std().item() == pytest.approx(before.shift.std().item(), rel=0.15)
    assert found[""].steady.item() == 0
    whole = list(randomized(model, "cascading"))[-1][1]
    for name, module in found.items():
        for own, new in zip(
            module.get_submodule(name).parameters(recurse=False),
            whole.module.get_submodule(name).parameters(recurse=False),
            strict=True,
        ):
            assert torch.equal(own, new)


def test_models_in_bfloat16_are_randomised_too():
    model = sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE)
    for _, other in randomized(model.prepared(torch.device("cpu"), "bf16"), "cascading"):
        assert {parameter.dtype for parameter in other.module.parameters()} == {torch.bfloat16}
        assert other.module(nets.patches(1).bfloat16()).isfinite().all()


def test_options_that_make_no_sense(model):
    with pytest.raises(SessError, match="unknown kind of randomisation 'casc'"):
        randomized(model, "casc")
    with pytest.raises(SessError, match="steps is 1: use 2 or more"):
        randomized(model, "cascading", steps=1)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_compared_with_those_of_the_model_as_it_is(model, kind):
    images = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8) for seed in range(3)]
    explain = grad_cam(images, target=2)
    found = list(parameter_randomisation(model, explain, kind, seed=3))
    assert [name for name, _ in found] == LAYERS
    maps = explain(model)
    for (name, alike), (_, other) in zip(found, randomized(model, kind, seed=3), strict=True):
        expected = [similarity(one, two) for one, two in zip(maps, explain(other), strict=True)]
        assert alike == expected, name
    assert min(one.spearman for _, alike in found for one in alike) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_edge_detector_fails_and_grad_cam_passes(lite0, photograph, kind):
    before = lite0.weights_sha256()
    found = dict(parameter_randomisation(lite0, edges([photograph]), kind, steps=3))
    assert len(found) == 3
    assert all(alike == [Similarity(1.0, 1.0)] for alike in found.values())
    changed_maps = dict(parameter_randomisation(lite0, grad_cam([photograph], target=285), kind, steps=3))
    assert list(changed_maps) == list(found)
    assert next(iter(found)) == "classifier"
    assert max(one.spearman for alike in changed_maps.values() for one in alike) < 0.95
    assert max(one.ssim for alike in changed_maps.values() for one in alike) < 0.95
    assert changed_maps["classifier"][0].spearman < 0.7
    assert lite0.weights_sha256() == before


@pytest.mark.slow
def test_maps_of_two_classes(lite0, photograph):
    cat, car = (grad_cam([photograph], target)(lite0) for target in (285, 817))
    [found] = target_sensitivity(cat, car)
    assert found == similarity(cat[0], car[0])
    assert found.spearman < 0.9
    assert target_sensitivity(cat, cat) == [Similarity(1.0, 1.0)]
    with pytest.raises(ValueError, match="shorter"):
        target_sensitivity(cat, [])
