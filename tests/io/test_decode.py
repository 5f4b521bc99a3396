"""Pixels of images of every kind, and of images that are read smaller than they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sess_ray import SessError
from sess_ray.io.decode import decode, enough, shrunk
from tests.io.pictures import RED, encoded, half_red


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colour_modes(mode):
    pixels = decode(encoded(half_red(mode)))
    assert pixels.shape == (4, 6, 3)
    assert tuple(pixels[0, 0].astype(int)) == pytest.approx(RED, abs=3)
    assert pixels[0, 5].tolist() == [255, 255, 255]


def test_cmyk_jpeg():
    pixels = decode(encoded(half_red("CMYK", (64, 32)), "JPEG", quality=95))
    assert tuple(pixels[16, 8].astype(int)) == pytest.approx(RED, abs=12)
    assert pixels[16, 60].min() > 245


def test_grey_is_spread_over_three_channels():
    pixels = decode(encoded(Image.fromarray(np.array([[0, 128, 255]], np.uint8))))
    assert pixels.tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_16_bit_grey_keeps_its_upper_bits():
    levels = np.array([[0, 128 * 257, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(levels), kind))[0, :, 0].tolist() == [0, 128, 255]


def test_what_is_transparent_is_shown_on_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (*RED, 255))
    assert decode(encoded(image)).tolist() == [[[255] * 3, list(RED)]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, *RED])
    palette.putpixel((1, 0), 1)
    assert decode(encoded(palette, transparency=0)).tolist() == [[[255] * 3, list(RED)]]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    pixels = decode(encoded(half_red(size=(64, 32)), "JPEG", exif=exif, quality=95))
    assert pixels.shape == (64, 32, 3)
    assert tuple(pixels[5, 16].astype(int)) == pytest.approx(RED, abs=12)
    assert pixels[60, 16].min() > 245


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, "blue")]
    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert tuple(pixels[0, 0].astype(int)) == pytest.approx(RED, abs=3)


@pytest.mark.slow
def test_what_is_no_image_is_refused_with_a_reason():
    photograph = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(photograph), "JPEG")
    for content, message in (
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image"),
        (jpeg[: len(jpeg) // 2], "broken image: OSError: .*truncated"),
        (jpeg[:30], "not an image|broken image"),
    ):
        with pytest.raises(SessError, match=message):
            decode(content)
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with pytest.raises(SessError, match=r"400000000|more than the 100000000 pixels|20000 x 20000"):
        decode(bomb)
    with pytest.raises(SessError, match="300 x 200 pixels, more than the 1000"):
        decode(jpeg, max_pixels=1000)


@pytest.mark.parametrize(
    ("size", "needed", "expected"),
    [
        ((300, 400), None, (300, 400)),
        ((300, 400), (300, 1), (300, 400)),
        ((300, 400), (1, 401), (300, 400)),
        ((300, 400), (150, 100), (150, 200)),
        ((400, 300), (150, 100), (200, 150)),
        ((300, 400), (150, 320), (240, 320)),
        ((5, 4000), (1, 100), (1, 800)),
    ],
)
def test_an_image_is_shrunk_as_far_as_both_sides_keep_what_is_needed(size, needed, expected):
    assert enough(*size, needed) == expected


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("longer", [37, 128, 200, 317])
def test_a_shrunk_image_shows_the_same_upright(photographs, kind, orientation, longer):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: turn it clockwise to see it
    picture = Image.fromarray(photographs["coffee.png"]).resize((317, 211))
    lying = picture if orientation == 1 else picture.rotate(90, expand=True)
    content = encoded(lying, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
    pixels, size = shrunk(content, needed=(1, longer))
    assert size == (211, 317)
    assert pixels.shape == (round(211 * longer / 317), longer, 3)
    whole = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(whole, pixels.shape[:2], mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    # A JPEG is shrunk twice, first without overlap; where its last blocks end half way, that must not shift the rest.
    assert np.abs(pixels - wanted).mean() < (0.5 if kind == "PNG" else 3)
