from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from sess_ray import SESS, SessError
from sess_ray.engine.cutting import cut
from sess_ray.engine.fusion import num_kept
from sess_ray.engine.sess import work_of
from sess_ray.pictures.plots import best_first, crop, rectangle, window_maps
from sess_ray.pipeline.gallery.windows_page import fused_best

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (150, 260, 3), np.uint8)


@pytest.fixture(scope="module")
def every(squeezenet, pixels):
    """All windows of an image, their maps kept."""
    sess = SESS(squeezenet, num_scales=4, pre_filter_ratio=0, keep_maps=True, device="cpu")
    return sess, sess.explain([pixels], [[7]])[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("fusion", ["seamless", "reference"])
def test_the_map_of_the_best_windows_is_what_sess_makes_of_them(squeezenet, pixels, every, ratio, fusion):
    _, explanation = every
    sess = SESS(squeezenet, num_scales=4, pre_filter_ratio=ratio, fusion=fusion, device="cpu")
    [[expected]] = sess.explain([pixels], [[7]])
    kept = num_kept(explanation.num_patches, ratio)
    assert kept == expected.num_kept
    np.testing.assert_allclose(fused_best(sess, explanation, kept), expected.saliency, atol=2e-6)
    assert sorted(best_first(explanation)[:kept]) == np.flatnonzero(expected.patches["kept"]).tolist()


def test_maps_are_kept_on_request(squeezenet, pixels):
    options = {"num_scales": 3, "pre_filter_ratio": 0.6, "device": "cpu"}
    [[without]] = SESS(squeezenet, **options).explain([pixels], [[7]])
    [[kept]] = SESS(squeezenet, **options, keep_maps=True).explain([pixels], [[7]])
    assert without.patch_maps is None
    with pytest.raises(SessError, match="keep_maps=True"):
        window_maps(without)
    np.testing.assert_array_equal(without.saliency, kept.saliency)
    assert len(kept.patch_maps) == kept.num_kept < kept.num_patches
    large = torch.nn.functional.interpolate(
        torch.from_numpy(kept.patch_maps)[:, None].double(), size=(224, 224), mode="bilinear", align_corners=False
    )[:, 0].numpy()
    low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
    np.testing.assert_allclose(window_maps(kept), (large - low) / (high - low), atol=1e-5)
    np.testing.assert_array_equal(window_maps(kept, [1]), window_maps(kept)[1:2])


def test_a_window_lies_where_it_was_cut(every):
    sess, explanation = every
    # A ramp along each axis: what a window sees says where it is.
    rows, columns = np.mgrid[:150, :260]
    ramp = np.stack([rows, columns * 255 // 259, np.zeros_like(rows)], 2).astype(np.uint8)
    work = work_of(sess, 0, (ramp, "top1"))
    mean, std = torch.tensor(sess.model.mean), torch.tensor(sess.model.std)
    for window, patch in enumerate(cut(work.source, work.plan)):
        seen = (patch.float().permute(1, 2, 0) * std + mean) * 255
        shown = np.asarray(crop(ramp, explanation, window, 224), np.float32)
        assert np.abs(seen.numpy() - shown)[8:-8, 8:-8].max() < 3, window
        x0, y0, x1, y1 = rectangle(explanation, window)
        assert -1 < x0 < x1 < 261
        assert -1 < y0 < y1 < 151


def test_pictures(every, pixels):
    _, explanation = every
    figure = explanation.plot(Image.fromarray(pixels))
    drawn = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    np.testing.assert_array_equal(drawn[0], pixels)
    np.testing.assert_array_equal(drawn[2], explanation.saliency)
    figure = explanation.plot_patches(pixels, most=5)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    best = explanation.patches[best_first(explanation)[:5]]
    assert titles == [f"scale {scale}, p = {score:.2f}" for scale, _, _, score, *_ in best.tolist()]
    assert len(figure.axes[0].patches) == 5
    with pytest.raises(SessError, match="give the image that was explained"):
        explanation.plot(pixels[:-1])
    matplotlib.pyplot.close("all")


def test_pictures_of_smaller_maps_show_the_image_as_small(squeezenet, pixels):
    [[explanation]] = SESS(squeezenet, num_scales=2, max_map_side=130, device="cpu").explain([pixels])
    figure = explanation.plot(pixels)
    [drawn, *_] = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    assert drawn.shape[:2] == explanation.saliency.shape == (75, 130)
    matplotlib.pyplot.close("all")
