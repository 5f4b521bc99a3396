"""From the bytes of a file to RGB pixels, as a person would see them."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sess_ray.errors import SessError

MAX_PIXELS = 100_000_000


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image of any kind that Pillow reads.

    EXIF rotation is applied; grey, palette and CMYK become RGB; what is transparent is shown on white; 16-bit grey
    keeps its upper 8 bits; of an animation the first frame is taken.

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
    if not content:
        raise SessError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are checked below
        try:
            image = Image.open(io.BytesIO(content))
        except Image.DecompressionBombError as error:
            raise SessError(f"the image has more than the {max_pixels} pixels allowed by max_pixels") from error
        except UnidentifiedImageError as error:
            raise SessError("not an image, or of a kind that Pillow does not read") from error
        except Exception as error:
            raise _broken(error) from error
        if image.width * image.height > max_pixels:
            raise SessError(
                f"the image has {image.width} x {image.height} pixels, more than the {max_pixels} allowed by max_pixels"
            )
        try:
            image.load()
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
        except Exception as error:
            raise _broken(error) from error


def _broken(error: Exception) -> SessError:
    return SessError(f"broken image: {type(error).__name__}: {error}".split("\n")[0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image)
        # Pillow opens 16-bit grey as 32-bit integers in some formats; what does not fit 16 bits is clipped.
        scaled = values / (257 if image.mode != "F" else 1)
        return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
