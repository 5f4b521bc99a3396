from __future__ import annotations

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


@pytest.mark.parametrize("name", [name for name in methods.names() if methods.get(name).family == "T"])
def test_a_dead_layer_gives_zeros(name):
    zeros = torch.zeros(2, 3, 4, 4)
    found = methods.get(name).function(zeros, zeros)
    assert torch.equal(found, torch.zeros(2, 4, 4))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_says_what_it_is_and_where_it_is_from(name):
    method = methods.get(name)
    assert method.summary
    assert method.paper


def test_an_unknown_method_names_the_choices():
    with pytest.raises(SessError, match=r"unknown method 'gradcm': choose one of: gradcam, gradcam\+\+"):
        methods.get("gradcm")


def test_a_name_is_registered_once():
    with pytest.raises(SessError, match="registered already"):
        methods.register("gradcam")(torch.add)
