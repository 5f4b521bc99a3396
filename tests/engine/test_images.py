"""Images and methods as people have them at hand in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import sess_ray
from sess_ray import SESS, SessError, methods
from tests import nets
from tests.fragile import brightness


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (41, 53, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return sess_ray.load_model(nets.Small(scale=9), layer="third", input_size=nets.SIDE)


def maps(sess, images, targets=((2,),)):
    return [found.saliency for own in sess.explain(images, targets) for found in own]


def kinds(pixels, folder):
    """The same image in many ways."""
    file = folder / "a b.png"
    Image.fromarray(pixels).save(file)
    opaque = np.dstack([pixels, np.full((41, 53), 255, np.uint8)])
    return {
        "Pillow": Image.fromarray(pixels),
        "path": file,
        "text": str(file),
        "URL": f"file://{file}",
        "alpha": opaque,
        "floats": pixels / 255,
        "float32": (pixels / 255).astype(np.float32),
        "tensor": torch.from_numpy(pixels),
        "channels first": torch.from_numpy(pixels).permute(2, 0, 1),
        "float tensor": (torch.from_numpy(pixels).permute(2, 0, 1) / 255).requires_grad_(),
    }


def test_an_image_may_be_given_in_many_ways(model, pixels, tmp_path):
    sess = SESS(model, num_scales=1, device="cpu")
    [expected] = maps(sess, [pixels])
    for name, image in kinds(pixels, tmp_path).items():
        for given in ([image], image):
            np.testing.assert_array_equal(maps(sess, given)[0], expected, err_msg=name)
    assert len(maps(sess, np.stack([pixels] * 2), [[2], [1, 3]])) == 3
    assert len(maps(sess, (image for image in (pixels, pixels)), "top2")) == 4
    grey = np.repeat(pixels[..., :1], 3, 2)
    [expected] = maps(sess, [grey])
    for image in (
        grey[..., 0],
        grey[..., :1],
        grey[..., 0] / 255,
        torch.from_numpy(grey[..., 0]),
        Image.fromarray(grey[..., 0]),
    ):
        np.testing.assert_array_equal(maps(sess, image)[0], expected)
    figure_of = sess.explain(tmp_path / "a b.png")[0][0].show(tmp_path / "a b.png")
    assert "<img" in figure_of._repr_html_()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 6, 3), 1.5), r"is float64 \(8, 6, 3\) from 1.5 to 1.5: give floats of 0 to 1, or uint8"),
        (np.full((8, 6, 3), np.nan), "from nan to nan: give floats of 0 to 1"),
        (np.zeros((8, 6, 2), np.uint8), "give a path, a Pillow image, or an array"),
        (np.zeros((8, 6), np.int64), "give a path, a Pillow image, or an array"),
        (np.zeros((3, 8, 6), np.uint8), "give a path, a Pillow image, or an array"),
        (torch.zeros(3, 8, 3), "either side may be its channels: permute it"),
        (np.zeros((0, 6, 3)), "give a path, a Pillow image, or an array"),
        ("nowhere.jpg", "no such image: nowhere.jpg"),
        (7, "give a path, a Pillow image, or an array"),
    ],
)
def test_what_is_no_image_is_told_in_a_line(model, image, message):
    with pytest.raises(
        SessError,
        match=f"^image 0: .*{message}" if isinstance(image, str) else f"^image 0: {message}|^image 0: .*{message}",
    ) as raised:
        SESS(model, num_scales=1, device="cpu").explain([image])
    assert "\n" not in str(raised.value)


def test_without_sess_is_none_or_0(model, pixels):
    [expected] = maps(SESS(model, num_scales=None, device="cpu"), pixels)
    sess = SESS(model, num_scales=0, device="cpu")
    np.testing.assert_array_equal(maps(sess, pixels)[0], expected)
    assert sess.num_scales is None
    np.testing.assert_array_equal(maps(SESS(model, num_scales=1, device="cpu").with_scales(0), pixels)[0], expected)


def test_a_method_may_be_a_function(model, pixels):
    def double(_model, patches, _targets, *, times: float = 2.0):
        return times * patches.mean(1)

    sess = SESS(model, method=double, num_scales=1, device="cpu", method_options={"times": "3"})
    assert sess.method.name.endswith("<locals>.double")
    assert sess.method.family == "P"
    named = SESS(model, method="tests.fragile:brightness", num_scales=1, device="cpu")
    np.testing.assert_array_equal(
        maps(SESS(model, method=brightness, num_scales=1, device="cpu"), pixels)[0], maps(named, pixels)[0]
    )
    assert methods.get(methods.get("gradcam").function) is methods.get("gradcam")
    assert methods.get(methods.get("rise")) is methods.get("rise")
    with pytest.raises(SessError, match=r"^method 7 is int: give a name or a function$"):
        SESS(model, method=7)


def test_the_package_lists_what_it_has():
    assert set(sess_ray.__all__) <= set(dir(sess_ray))
