"""Every method with models whose input is not square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, SessError, methods
from sess_ray.methods import augmented, extremal
from tests import nets
from tests.methods.quick import OTHERS, QUICK, crops, other

SIZE = (32, 48)  # 4 x 6 positions of the transformer
# They draw random numbers, see every other patch mirrored from left to right, or cut the patch into segments in order.
UNLIKE = ["smoothgrad", "smooth_gradcam++", "sscam", "rise", "augmented_gradcam", "extremal_perturbation", "xrai"]


def net(name):
    module, layer = other(name) if name in OTHERS else (nets.Small(scale=15), "third")
    if isinstance(module, nets.Transformer):
        module.places = nn.Parameter(torch.cat([module.places, module.places[:, 2:10] / 2], 1))
    return module, layer


def transposed(module):
    """Turn a module so that it sees a transposed image as it saw the image."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.transpose(2, 3).contiguous()
    if isinstance(module, nets.Transformer):
        cells = torch.arange(24).view(4, 6).T.flatten() + 2
        module.places.data = module.places.data[:, [0, 1, *cells]]
    return module


def explained(module, layer, name, size, image, **settings):
    model = sess_ray.load_model(module, layer=layer, input_size=size)
    sess = SESS(model, name, num_scales=2, device="cpu", method_options=QUICK.get(name), **settings)
    return sess.explain([image], [[1, 2]])[0]


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in UNLIKE])
def test_a_transposed_image_has_a_transposed_map(name, photographs):
    image = crops(photographs, 1)[0]
    first = explained(*net(name), name, SIZE, image)
    module, layer = net(name)
    second = explained(transposed(module), layer, name, SIZE[::-1], np.ascontiguousarray(image.transpose(1, 0, 2)))
    for one, turned in zip(first, second, strict=True):
        assert one.num_patches == turned.num_patches
        np.testing.assert_allclose(one.saliency, turned.saliency.T, atol=1e-5)
        assert one.saliency.std() > 0.01


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "extremal" in name else []) for name in UNLIKE]
)
def test_others_have_a_map_too(name, photographs):
    for found in explained(*net(name), name, SIZE, crops(photographs, 1)[0], keep_maps=True):
        assert np.isfinite(found.patch_maps).all()
        assert found.saliency.std() > 0.01


def test_a_fine_map_that_is_not_square_is_reduced_where_it_was_seen():
    """A spot turned and shifted by T is where the inverse says, and its coarse cell is the one that holds it."""
    angles, shifts = torch.tensor([[0.0, 0.3]]), torch.tensor([[[0.0, 0.0], [4.0, -3.0]]])
    fine = torch.zeros(1, 24, 48)
    fine[0, 9:12, 30:33] = 1
    plain, turned = augmented.Reduction((4, 8), angles, shifts, (24, 48))(fine)[0]
    assert (plain.argmax(), plain.sum() * 36) == (1 * 8 + 5, pytest.approx(9, abs=1))
    spot = torch.tensor([[[31.0, 10.0]]])
    x, y = augmented._turned_back(spot, angles[0], shifts[0], (24, 48))[1, 0, 0].tolist()
    assert turned.argmax() == int((y + 0.5) // 6) * 8 + int((x + 0.5) // 6)
    centre = torch.tensor([[[23.5, 11.5]]])  # turns in its place
    back = augmented._turned_back(centre, angles[0], shifts[0], (24, 48))[1, 0, 0]
    torch.testing.assert_close(back, torch.tensor([27.5, 8.5]))


def test_the_smooth_mask_of_a_patch_has_its_shape():
    smooth = extremal.SmoothMask((16, 30), torch.device("cpu"))
    parameters = torch.zeros(1, *smooth.cells)
    parameters[0, 1, 3] = 1  # at row 7, column 21
    mask = smooth.cropped(smooth(parameters))[0]
    assert mask.shape == (16, 30)
    assert mask[7, 21] == pytest.approx(1, abs=1e-3)
    assert mask[7, 0] < 0.7
    square = extremal.SmoothMask(30, torch.device("cpu"))
    more = torch.zeros(1, *square.cells)
    more[0, 1, 3] = 1
    torch.testing.assert_close(mask, square.cropped(square(more))[0, :16], atol=0, rtol=0)


def test_attention_needs_to_know_the_grid():
    module, _ = net("attention_rollout")
    with pytest.raises(SessError, match="layer cells does not tell which grid its 26 tokens have over 32 x 48 pixels"):
        explained(module, "cells", "attention_rollout", SIZE, np.zeros((40, 60, 3), np.uint8))


@pytest.mark.parametrize("spec", ["captum:LayerGradCam", "pytorch_grad_cam:GradCAM"])
def test_other_libraries_make_the_same_map(spec, photographs):
    pytest.importorskip(spec.partition(":")[0])
    image = crops(photographs, 1)[0]
    settings = {"pre_filter_ratio": 0.5, "fade": 0.0}
    both = [explained(*net(name), name, SIZE, image, **settings) for name in ("gradcam", spec)]
    for ours, theirs in zip(*both, strict=True):
        np.testing.assert_allclose(ours.saliency, theirs.saliency, atol=1e-5)
