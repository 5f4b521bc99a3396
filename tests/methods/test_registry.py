from __future__ import annotations

from typing import Literal

import pytest
import torch

from sess_ray import SessError, methods


def test_grad_cam_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 1.0]]]])  # two channels of 1 x 2
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    # weights 2 and -0.5: 2 * (1, 2) - 0.5 * (4, 1) = (0, 3.5)
    found = methods.get("gradcam").function(activations, gradients)
    assert found.tolist() == [[[0.0, 3.5]]]


def test_grad_cam_plus_plus_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 1.0]]]])
    gradients = torch.tensor([[[[1.0, 2.0]], [[-1.0, 0.0]]]])
    # channel 0, S = 3: alpha = 1 / (2 + 3) = 0.2 and 4 / (8 + 24) = 0.125; w = 0.2 * 1 + 0.125 * 2 = 0.45
    # channel 1, S = 5: g <= 0 everywhere, so w = 0
    found = methods.get("gradcam++").function(activations, gradients)
    torch.testing.assert_close(found, torch.tensor([[[0.45, 0.9]]]))


def test_grad_cam_plus_plus_against_loops_in_float64():
    generator = torch.Generator().manual_seed(11)
    activations = torch.rand(3, 5, 4, 4, dtype=torch.float64, generator=generator)
    gradients = torch.randn(3, 5, 4, 4, dtype=torch.float64, generator=generator)
    gradients[:, 2] = 0  # denominators of zero
    expected = torch.zeros(3, 4, 4, dtype=torch.float64)
    for n in range(3):
        for k in range(5):
            total = activations[n, k].sum()
            weight = 0.0
            for g in gradients[n, k].flatten():
                denominator = 2 * g**2 + total * g**3
                alpha = g**2 / (denominator if denominator != 0 else 1.0)
                weight += alpha * max(g, 0)
            expected[n] += weight * activations[n, k]
    found = methods.get("gradcam++").function(activations, gradients)
    torch.testing.assert_close(found, expected.relu(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("channels", [7, 33])
def test_eigen_cam_is_the_first_singular_vector(channels):
    generator = torch.Generator().manual_seed(12)
    activations = torch.rand(2, channels, 5, 4, generator=generator)
    for found, one in zip(methods.get("eigencam").function(activations), activations, strict=True):
        samples = one.flatten(1).T.double()
        _, _, right = torch.linalg.svd(samples)
        expected = (samples @ right[0]).view(5, 4).abs()  # activations are positive: it is of one sign
        torch.testing.assert_close(found.double() / found.max(), expected / expected.max(), atol=1e-5, rtol=0)


def test_fem_by_hand():
    activations = torch.zeros(1, 2, 3, 3)
    activations[0, 0, 1, 1] = 9.0  # mean 1, standard deviation sqrt(8): 9 > 1 + 2 sqrt(8)
    activations[0, 1, 0] = 3.0  # mean 1, standard deviation sqrt(2): 3 < 1 + 2 sqrt(2)
    expected = torch.zeros(1, 3, 3)
    expected[0, 1, 1] = 1.0
    assert torch.equal(methods.get("fem").function(activations), expected)
    expected[0, 0] = 1.0
    assert torch.equal(methods.get("fem").function(activations, k=1.0), expected)


T_METHODS = [name for name in methods.names() if methods.get(name).family == "T" and not methods.get(name).given]


@pytest.mark.parametrize("name", T_METHODS)
def test_a_dead_layer_gives_zeros(name):
    method, zeros = methods.get(name), torch.zeros(2, 3, 4, 4)
    found = method.function(*[zeros for _ in method.looks_at])
    assert torch.equal(found, torch.zeros(2, 4, 4))


def mine(
    _model, _patches, _targets, *, generators, power: float = 2.0, count: int = 3, way: Literal["up", "down"] = "up"
):
    """Do nothing."""


@pytest.mark.parametrize(
    ("method", "option", "value", "message"),
    [
        ("rise", "probability", "0", "probability=0: use a number above 0 and below 1"),
        ("rise", "probability", "1", "use a number above 0 and below 1"),
        ("guided_backprop", "percentile", "0", "use a number above 0 and up to 100"),
        ("guided_backprop", "percentile", "101", "use a number above 0 and up to 100"),
        ("extremal_perturbation", "areas", "0.1,1.5", "areas=1.5: use a number above 0 and up to 1"),
    ],
)
def test_values_that_make_no_map_are_refused(method, option, value, message):
    with pytest.raises(SessError, match=message):
        methods.get(method).parsed({option: value})
    assert methods.get("guided_backprop").parsed({"percentile": "100"}) == {"percentile": 100.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"powr": 1}, "unknown option of mine 'powr': choose one of: count, power, way"),
        ({"count": "0"}, "mine: count=0: use a whole number from 1 on"),
        ({"count": "2.5"}, "use a whole number"),
        ({"power": "-1"}, "mine: power=-1: use a number from 0 on"),
        ({"power": "nan"}, "use a number"),
        ({"way": "left"}, "mine: way=left: choose one of: up, down"),
        ({"generators": 1}, "unknown option"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(SessError, match=message):
        methods.Method("mine", "P", mine).parsed(options)


def test_options_get_the_type_of_their_default():
    method = methods.Method("mine", "P", mine)
    assert method.parsed({"power": "3", "count": "4", "way": "down"}) == {"power": 3.0, "count": 4, "way": "down"}
    assert method.options == {"power": 2.0, "count": 3, "way": "up"}
    assert method.given == ["generators"]


def test_options_need_no_annotations_that_can_be_read():
    def unknown(_model: Nowhere, _patches, _targets, *, count=3, power: Nowhere = 2.0):  # noqa: F821
        """Do nothing."""

    method = methods.Method("unknown", "P", unknown)
    assert method.parsed({}) == {}
    assert method.parsed({"count": "4", "power": "3"}) == {"count": 4, "power": 3.0}


def test_a_method_can_not_ask_for_what_nobody_gives():
    with pytest.raises(SessError, match="'mine' asks for 'luck': give the option a default, or ask for scores"):

        @methods.register("mine")
        def mine(_model, patches, _targets, *, luck):
            return patches * luck


def test_a_method_of_family_t_can_ask_for_the_rest_of_the_scoring_pass_alone():
    with pytest.raises(SessError, match=r"'mine' asks for 'seed': give the option a default, or ask for scored$"):

        @methods.register("mine", family="T")
        def mine(activations, _gradients, *, seed):
            return activations[:, seed]


def of_the_layer(activations, gradients):
    return activations * gradients


def with_luck(_model, patches, _targets, *, luck):
    return patches * luck


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (of_the_layer, r"is called with \(model, patches, targets\): too many"),
        (lambda patches: patches, r"is called with \(model, patches, targets\): too many"),
        (lambda a, b, c, more: a + b + c + more, "missing a required argument: 'more'"),
        (max, r"is called with \(model, patches, targets\): no signature found"),
        (with_luck, "asks for 'luck': give the option a default"),
        (dict, "is type: give a name or a function"),
        (3, "is int: give a name or a function"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(function, message):
    with pytest.raises(SessError, match=message):
        methods.get(function)


def test_an_unknown_method_names_the_choices():
    with pytest.raises(SessError, match="unknown method 'gradcm': did you mean gradcam "):
        methods.get("gradcm")


def test_a_name_is_registered_once():
    with pytest.raises(SessError, match="registered already"):
        methods.register("gradcam")(torch.add)
