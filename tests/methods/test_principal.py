"""The first principal component, against a decomposition in float64."""

from __future__ import annotations

import pytest
import torch

from sess_ray import SESS, load_model, methods
from sess_ray.methods import principal
from tests import nets


def samples(spectrum, channels, side, seed=0):
    """Return activations (1, K, u, v) with the given first singular values, and the first left vector."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(side * side, len(spectrum), generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(channels, len(spectrum), generator=generator, dtype=torch.float64))
    values = left @ torch.tensor(spectrum, dtype=torch.float64).diag() @ right.T
    return values.T.reshape(1, channels, side, side), left[:, 0]


@pytest.mark.parametrize("channels", [5, 40, 600])
@pytest.mark.parametrize("second", [0.1, 0.9, 0.99])
def test_it_is_the_first_singular_vector(second, channels):
    values, vector = samples([1.0, second, 0.5, 0.3, 0.01], channels, side=7)
    expected = vector * (vector @ values[0].flatten(1).sum(0))
    found = principal.project(values.float(), centred=False)[0].flatten().double()
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_powers_which_a_gpu_takes_find_the_same():
    values = torch.rand(3, 30, 6, 5, generator=torch.Generator().manual_seed(1))
    products = values.flatten(2).mT @ values.flatten(2)
    sums = values.flatten(2).sum(1)
    found = principal.first_part(products, sums)
    torch.testing.assert_close(found, (principal._projector(products) @ sums[..., None])[..., 0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found, principal.project(values, centred=False).flatten(1), atol=1e-4, rtol=1e-5)


def test_a_sum_that_the_component_has_no_part_in_leaves_nothing():
    """The first component's channels cancel in the sum; the second's do not, and it is not taken for the first."""
    values = torch.zeros(1, 3, 2, 2)
    values[0, :2, 0, 0] = torch.tensor([5.0, -5.0])
    values[0, 2, 1] = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(principal.project(values, centred=False), torch.zeros(1, 2, 2), atol=1e-5, rtol=0)


def test_bad_values_stay_in_their_own_map():
    values = torch.rand(3, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    expected = principal.project(values, centred=True)
    values[1, 0, 0, 0] = torch.nan
    found = principal.project(values, centred=True)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], atol=1e-5, rtol=1e-5)
    assert not found[1].isfinite().any()


@pytest.mark.parametrize("side", [1, 2])
def test_few_positions(side):
    values = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    rows = values.flatten(2).double().mT
    left = torch.linalg.svd(rows)[0][..., :1]
    expected = (left @ left.mT @ rows.sum(2, keepdim=True)).view(2, side, side).float()
    torch.testing.assert_close(principal.project(values, centred=False), expected, atol=1e-5, rtol=1e-5)


def test_patches_of_few_components_wait_for_one_of_many():
    few = [samples([1.0, 0.8, 0.3], channels=40, side=6, seed=seed) for seed in range(3)]
    many = samples([1 - 0.02 * number for number in range(30)], channels=40, side=6, seed=9)
    values, vectors = (torch.cat(parts) for parts in zip(*((one, u[None]) for one, u in (*few, many)), strict=True))
    expected = vectors * (vectors * values.flatten(2).sum(1)).sum(1, keepdim=True)
    found = principal.project(values.float(), centred=False).flatten(1).double()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["eigencam", "kpcacam", "fem", "rise", "gradcam"])
def test_what_needs_no_gradient_records_none(name):
    recording = []
    method = methods.get(name)
    sess = SESS(
        load_model(nets.Small(), layer="third", input_size=nets.SIDE),
        name,
        num_scales=1,
        method_options={"masks": 2} if name == "rise" else {},
    )
    head = sess.model.scorer.get_submodule("classes")
    head.register_forward_hook(lambda _, __, logits: recording.append(logits.requires_grad))
    sess.explain([torch.rand(3, nets.SIDE, nets.SIDE, generator=torch.Generator().manual_seed(4))])
    assert set(recording) == {method.pulls} == {name == "gradcam"}
