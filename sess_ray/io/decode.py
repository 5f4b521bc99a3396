"""From the bytes of a file to RGB pixels, as a person would see them."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import suppress
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sess_ray.errors import SessError

Sides = tuple[int, int]  # in pixels: the shorter side of an image, and the longer
MAX_PIXELS = 100_000_000
WHITE, WHITE_16 = 255, 65535
# What is said of kinds that Pillow does not read by itself, by how they begin.
UNREAD = {
    re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL): "a HEIF image: install sess-ray[heif]",
    re.compile(
        rb"....ftypavi[fs]", re.DOTALL
    ): "an AVIF image, which this Pillow was built without: install pillow>=11.3",
    re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "): "a JPEG XL image, which Pillow does not read: convert it",
    re.compile(rb".{128}DICM", re.DOTALL): "a DICOM file, which Pillow does not read: convert it",
    re.compile(rb"\s*<(?:\?xml|svg|!DOCTYPE|html)", re.IGNORECASE): "not an image but a page or a drawing in XML",
    re.compile(rb"version https://git-lfs"): "not an image but a pointer of Git LFS: run git lfs pull",
}
SLACK = 0.01  # of white: how far beyond black and white resampling may have brought values
DARK = 16  # levels: where none is brighter, it is more likely that another white is meant
SIXTEEN = ("PNG", "PPM")  # formats whose 16-bit grey Pillow may open as 32-bit integers
# What EXIF's orientations want done to see the image.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDTH, _HEIGHT, _PHOTOMETRIC = (
    ExifTags.Base.ImageWidth,
    ExifTags.Base.ImageLength,
    ExifTags.Base.PhotometricInterpretation,
)


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image of any kind that Pillow reads.

    EXIF rotation is applied; grey, palette and CMYK become RGB; what is transparent is shown on white; of an animation
    the first frame is taken. 16-bit grey keeps its upper 8 bits. Grey in 32 bits does not say what is white: floats
    within 0..1 are fractions, numbers within 0..255 are levels, integers within 0..65535 are 16-bit grey. All else, and
    what would be nearly black by that, is refused.

    Parameters
    ----------
    content : bytes
        The file.
    max_pixels : int
        Refuse larger images before their pixels are unpacked.

    Returns
    -------
    numpy.ndarray, (H, W, 3) uint8

    Raises
    ------
    SessError
        If this is no image, it is broken, or it is too large.
    """
    pixels, _ = shrunk(content, max_pixels)
    return pixels


def shrunk(
    content: bytes, max_pixels: int = MAX_PIXELS, needed: Sides | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image as `decode` does, and shrink one that is larger than is needed.

    A JPEG is decoded at a half, a quarter or an eighth of its size where that is large enough. Then images are
    resampled, bilinear with antialias.

    Parameters
    ----------
    content : bytes
        The file.
    max_pixels : int
        Refuse images that have more, before they are shrunk.
    needed : (int, int), optional
        Pixels of the shorter and of the longer side; see `enough`.

    Returns
    -------
    pixels : numpy.ndarray, (h, w, 3) uint8
    size : (int, int)
        Height and width of the image, in pixels, as a person sees it.

    Raises
    ------
    SessError
        As `decode`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are checked below
        image = opened(content, max_pixels)
        try:
            turned = _turned(image)
            width, height = image.size[::-1] if turned else image.size
            rows, columns = enough(height, width, needed)
            if (rows, columns) == (height, width):
                pixels = _upright(image)
                return np.asarray(pixels), (pixels.height, pixels.width)
            image = _drafted(image, (rows, columns) if turned else (columns, rows))
            pixels = _upright(image).resize((columns, rows), Image.Resampling.BILINEAR)
            return np.asarray(pixels), (height, width)
        except SessError:
            raise
        except Exception as error:
            raise _broken(error) from error


def opened(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the image of a file, its pixels not unpacked yet; `SessError` if it is none, or has too many."""
    if not content:
        raise SessError("the file is empty")
    _register()
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise SessError(f"the image has more than the {max_pixels} pixels allowed by max_pixels") from error
    except UnidentifiedImageError as error:
        kind = next((kind for begin, kind in UNREAD.items() if begin.match(content)), None)
        raise SessError(kind or "not an image, or of a kind that Pillow does not read") from error
    except Exception as error:
        raise _broken(error) from error
    refuse_more_pixels(image.height, image.width, max_pixels)
    return image


def refuse_more_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raise `SessError` for an image of more pixels than are allowed."""
    if height * width > max_pixels:
        raise SessError(f"the image has {width} x {height} pixels, more than the {max_pixels} allowed by max_pixels")


@cache
def _register() -> None:
    """Let Pillow read HEIF, where the package for it is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def as_seen(image: Image.Image) -> np.ndarray:
    """Return the pixels of a Pillow image as `decode` gives those of its file.

    Returns
    -------
    numpy.ndarray, (H, W, 3) uint8
        Height and width are swapped where EXIF says so.

    Raises
    ------
    SessError
        If its file is broken, or the image does not say what is white.
    """
    try:
        return np.asarray(_upright(image))
    except SessError:
        raise
    except Exception as error:
        raise _broken(error) from error


def enough(height: int, width: int, needed: Sides | None) -> tuple[int, int]:
    """Return (height, width) of an image shrunk as far as both of its sides keep what is needed; None for no limit.

    >>> enough(3000, 4000, (900, 1000)), enough(3000, 4000, (600, 1000)), enough(300, 400, (900, 1000))
    ((900, 1200), (750, 1000), (300, 400))
    """
    if needed is None:
        return height, width
    least = sorted((height, width))
    factor = max(few / many for few, many in zip(needed, least, strict=True))
    return (height, width) if factor >= 1 else (round(height * factor), round(width * factor))


def _drafted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a JPEG at this size, (width, height), without unpacking it at its own; another image as it is."""
    drafted = image.draft(None, size)
    if drafted is None:
        return image
    _, box = drafted  # where the image ends in the last of its reduced pixels
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


def _turned(image: Image.Image) -> bool:
    """Say whether EXIF swaps the height and width that Pillow tells."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF, whose height and width Pillow has swapped already
    swapped = (tags.get(_HEIGHT), tags.get(_WIDTH)) == image.size
    return _orientation(image) in (5, 6, 7, 8) and not swapped


def _orientation(image: Image.Image) -> int | None:
    """Return how EXIF says that an image lies; None where its EXIF is broken, which is no reason not to show it."""
    try:
        found: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return found


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    negative = _is_deep(image) and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow turns 8 bits alone
    pixels = to_rgb(image, sixteen=image.format in SIXTEEN)
    turn = TURNS.get(_orientation(image) or 1)
    pixels = pixels if turn is None else pixels.transpose(turn)
    return ImageOps.invert(pixels) if negative else pixels


def _broken(error: Exception) -> SessError:
    return SessError(f"broken image: {type(error).__name__}: {error}".split("\n")[0])


def to_rgb(image: Image.Image, *, sixteen: bool = False) -> Image.Image:
    """Return an image of any mode as RGB, as `decode` does; `sixteen` where 32-bit integers stand for 16-bit grey."""
    if _is_deep(image):
        integers = image.mode != "F" and (sixteen or image.mode.startswith("I;"))  # of a PPM there may be floats, too
        grey = Image.fromarray(_levels(np.asarray(image), sixteen=integers))
        key = image.info.get("transparency")
        if image.mode.startswith("I;16") and isinstance(key, int):
            grey.paste(WHITE, mask=Image.fromarray(np.asarray(image) == key))
        return grey.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Say whether an image is grey of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _levels(values: np.ndarray, *, sixteen: bool) -> np.ndarray:
    """Return grey of more than 8 bits as uint8; `SessError` where nothing tells what is white."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    whites = (WHITE_16,) if sixteen else (1, WHITE) if values.dtype.kind == "f" else (WHITE, WHITE_16)
    slack = SLACK if values.dtype.kind == "f" else 0
    for white in whites:
        beyond = slack * white
        if -beyond <= low and high <= white + beyond:
            levels = np.clip(np.rint(values * (WHITE / white)), 0, WHITE).astype(np.uint8)
            if sixteen or not high or levels.max() > DARK:
                return levels
            break
    raise SessError(
        f"its values, {low:g} to {high:g}, do not say what is white: save it with 8 or 16 bits, or as floats of 0 to 1"
    )
