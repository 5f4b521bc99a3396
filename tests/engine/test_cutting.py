from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional as TF

from sess_ray.engine import cutting
from sess_ray.engine.cutting import Normalizer, Source, cut, resized
from sess_ray.windows import sess_plan

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalizer():
    return Normalizer(MEAN, STD, torch.device("cpu"))


@pytest.mark.parametrize("size", [(224, 224), (300, 224), (640, 853), (60, 45), (1, 1)])
@pytest.mark.parametrize("shape", [(120, 90), (375, 500), (1, 1), (3, 700)])
def test_resize_is_torchvisions_on_the_normalised_image(shape, size):
    pixels = image(*shape)
    exact = TF.normalize(pixels.double() / 255, MEAN, STD)  # in float32 its coordinates are off by 3e-4 of a level
    expected = TF.resize(exact, list(size), antialias=True).float()
    found = resized(Source(pixels, normalizer()), *size)(0, size[0]).permute(2, 0, 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_strips_change_nothing(monkeypatch):
    pixels = image(203, 117)
    whole = resized(Source(pixels, normalizer()), 300, 224)(0, 300)
    monkeypatch.setattr(cutting, "STRIP_PIXELS", 117 * 10)
    source = Source(pixels, normalizer())
    assert source._whole is None
    torch.testing.assert_close(resized(source, 300, 224)(0, 300), whole, atol=0, rtol=0)


@pytest.mark.parametrize("window", [(128, 128), (96, 160)])
def test_windows_are_cut_where_the_plan_says(window):
    pixels = image(240, 330)
    plan = sess_plan(240, 330, window, 3, 96)
    source = Source(pixels, normalizer())
    found = [window.clone() for window in cut(source, plan)]
    assert len(found) == plan.num_patches
    height, width = window
    for patch, (i, y, x) in zip(found, plan.positions(), strict=True):
        scale = plan.scales[i]
        whole = resized(source, scale.height, scale.width)(0, scale.height).permute(2, 0, 1)
        assert torch.equal(patch, whole[:, y : y + height, x : x + width])
