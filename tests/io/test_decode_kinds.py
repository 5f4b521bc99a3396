"""Images as people have them: what a file, a Pillow image and the job make of each is the same."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import sess_ray
from sess_ray import SessError
from sess_ray.io.decode import as_seen, decode, shrunk
from tests.nets import small

RAMP = np.linspace(0, 1, 40 * 56).reshape(40, 56)
LEVELS = np.rint(RAMP * 255).astype(np.uint8)
GREY = Image.fromarray(LEVELS)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image, kind, orientation):
    """Return a file of an image that lies, with the EXIF that says how it is to be turned."""
    lying = {1: None, 3: 180, 6: 90, 8: 270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image.rotate(lying, expand=True) if lying else image, kind, exif=exif)


def with_alpha(image):
    alpha = Image.fromarray(np.where(np.arange(56) < 28, 255, 90).astype(np.uint8)[None].repeat(40, 0))
    both = image.convert("RGBA")
    both.putalpha(alpha)
    return both


FILES = {
    "16-bit PNG": partial(encoded, Image.fromarray((RAMP * 65535).astype(np.uint16))),
    "16-bit TIFF": partial(encoded, Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF"),
    "float TIFF of 0..1": partial(encoded, Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "float TIFF of 0..255": partial(encoded, Image.fromarray(LEVELS.astype(np.float32)), "TIFF"),
    "int32 TIFF of 0..255": partial(encoded, Image.fromarray(LEVELS.astype(np.int32)), "TIFF"),
    "int32 TIFF of 0..65535": partial(encoded, Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"),
    "alpha": lambda: encoded(with_alpha(GREY)),
    "grey and alpha": lambda: encoded(with_alpha(GREY).convert("LA")),
    "palette": lambda: encoded(GREY.convert("RGB").quantize(64)),
    "palette, one colour transparent": lambda: encoded(GREY.convert("RGB").quantize(64), transparency=3),
    "CMYK JPEG": lambda: encoded(GREY.convert("CMYK"), "JPEG"),
    "CMYK TIFF": lambda: encoded(GREY.convert("CMYK"), "TIFF"),
    "two colours": lambda: encoded(GREY.convert("1")),
    "EXIF in JPEG": lambda: turned(GREY, "JPEG", 6),
    "EXIF in PNG": lambda: turned(GREY, "PNG", 8),
    "EXIF in TIFF": lambda: turned(GREY, "TIFF", 6),
    "EXIF in WebP": lambda: turned(GREY.convert("RGB"), "WEBP", 3),
}


@pytest.mark.parametrize("name", FILES)
def test_an_image_in_python_has_the_pixels_that_its_file_has_in_the_job(name):
    content = FILES[name]()
    expected = decode(content)
    np.testing.assert_array_equal(as_seen(Image.open(io.BytesIO(content))), expected)
    assert expected.shape == (40, 56, 3)
    if "alpha" not in name and "transparent" not in name and name != "two colours":
        assert np.abs(expected[..., 0].astype(int) - LEVELS).mean() < 3


def test_the_engine_explains_pillow_images_as_the_job_explains_their_files():
    sess = sess_ray.SESS(small()[0], num_scales=1, step_size=32)
    for name in ("16-bit PNG", "alpha", "EXIF in TIFF", "float TIFF of 0..1"):
        content = FILES[name]()
        [[opened]], [[decoded]] = (
            sess.explain([image]) for image in (Image.open(io.BytesIO(content)), decode(content))
        )
        np.testing.assert_array_equal(opened.saliency, decoded.saliency)
    with pytest.raises(SessError, match="image 0: its values, 0 to 1000, do not say what is white"):
        sess.explain([Image.fromarray((RAMP * 1000).astype(np.float32))])


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_image_keeps_its_sides_when_it_is_shrunk(kind, orientation):
    upright = Image.fromarray(LEVELS).convert("RGB").resize((280, 200))
    pixels, size = shrunk(turned(upright, kind, orientation), needed=(1, 70))
    assert size == (200, 280)
    assert pixels.shape == (50, 70, 3)
    wanted = np.asarray(upright.resize((70, 50), Image.Resampling.BILINEAR))
    assert np.abs(pixels.astype(int) - wanted).mean() < 4


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP * 1000, "0 to 1000"),
        (RAMP * 1005 - 5, "-5 to 1000"),
        (np.where(RAMP > 0.5, np.nan, RAMP), "nan"),
        (np.where(RAMP > 0.5, np.inf, RAMP), "inf"),
    ],
)
def test_floats_that_do_not_say_what_is_white_are_refused(values, told):
    with pytest.raises(SessError, match=rf"{told}.*do not say what is white: save it with 8 or 16 bits, or as floats"):
        decode(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))


@pytest.mark.parametrize("factor", [70_000, 2_000_000_000, -100])
def test_integers_that_do_not_say_what_is_white_are_refused(factor):
    with pytest.raises(SessError, match="do not say what is white"):
        decode(encoded(Image.fromarray((RAMP * factor).astype(np.int32)), "TIFF"))


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (RAMP * 1.005 - 0.002, False),  # as resampling overshoots
        (RAMP * 256 - 0.5, False),
        (RAMP * 1.2, True),
        (RAMP * 9, True),
        ((RAMP * 1.5).astype(np.int32), True),  # a mask of 0 and 1
        ((RAMP * 4095).astype(np.int32), True),  # 12 bits
        ((RAMP * 40).astype(np.int32), False),
        (RAMP * 0, False),
    ],
)
def test_what_would_be_nearly_black_is_refused(values, refused):
    kind = values.dtype if values.dtype == np.int32 else np.float32
    content = encoded(Image.fromarray(values.astype(kind)), "TIFF")
    if refused:
        with pytest.raises(SessError, match="do not say what is white"):
            decode(content)
    else:
        assert decode(content).max() in (0, 40, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_all_orientations(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(GREY, kind, exif=exif)
    lying = np.asarray(Image.open(io.BytesIO(encoded(GREY, kind))))
    turns = [lying, lying[:, ::-1], lying[::-1, ::-1], lying[::-1], lying.T, np.rot90(lying, -1), lying[::-1, ::-1].T]
    upright = [*turns, np.rot90(lying)][orientation - 1]
    np.testing.assert_array_equal(decode(content)[..., 0], upright)


def test_broken_exif_does_not_cost_the_image():
    content = encoded(GREY, "JPEG", exif=b"Exif\0\0junkjunk")
    np.testing.assert_array_equal(decode(content), decode(encoded(GREY, "JPEG")))
    assert shrunk(content, needed=(1, 28))[0].shape == (20, 28, 3)


def test_dark_16_bit_grey_stays_dark():
    """Its white is that of the format, whatever the values are."""
    dark = (RAMP * 200).astype(np.uint16)
    pgm = b"P5 56 40 65535\n" + dark.astype(">u2").tobytes()
    for content in (encoded(Image.fromarray(dark)), encoded(Image.fromarray(dark), "TIFF"), pgm):
        assert decode(content).max() == 1


def test_deep_grey_of_which_white_is_zero():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    content = encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF", tiffinfo=tags)
    np.testing.assert_array_equal(decode(content)[..., 0], 255 - decode(FILES["16-bit TIFF"]())[..., 0])


def test_a_level_of_16_bit_grey_that_is_transparent_is_white():
    content = encoded(Image.fromarray(np.array([[7, 30_000]], np.uint16)), transparency=7)
    assert decode(content)[0, :, 0].tolist() == [255, 117]


def test_floats_of_a_portable_float_map_are_floats():
    content = b"Pf\n2 1\n-1.0\n" + np.array([0.5, 1.0], "<f4").tobytes()
    assert decode(content)[0, :, 0].tolist() == [128, 255]
    np.testing.assert_array_equal(as_seen(Image.open(io.BytesIO(content))), decode(content))
