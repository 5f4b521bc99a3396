"""A blur's borders are OpenCV's, also where it reaches further than the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sess_ray.blur import blurred, gaussian_kernel


@pytest.mark.parametrize("size", [(1, 4), (2, 9), (9, 16), (16, 40), (26, 60)])
@pytest.mark.parametrize(("border", "theirs"), [("reflect", "BORDER_REFLECT_101"), ("replicate", "BORDER_REPLICATE")])
def test_borders_are_those_of_opencv(size, border, theirs):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(8).random(size, np.float32)
    found = blurred(torch.from_numpy(image)[None, None], gaussian_kernel(51, 50.0), border)[0, 0]
    weights = gaussian_kernel(51, 50.0).numpy()
    expected = cv2.sepFilter2D(image, cv2.CV_32F, weights, weights, borderType=getattr(cv2, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-6)
