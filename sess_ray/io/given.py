"""What may be given as an image in Python, as pixels."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from sess_ray.access import one_line
from sess_ray.errors import SessError
from sess_ray.io.decode import as_seen, to_rgb
from sess_ray.small import read_small

if TYPE_CHECKING:
    from torch import Tensor  # else this would import torch

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor"
CHANNELS = (1, 3, 4)
KINDS = "give a path, a Pillow image, or an array (H, W, 3), uint8 or floats of 0 to 1"


def is_image(given: Any) -> bool:
    """Say whether something is one image and not a sequence of some.

    >>> is_image("cat.jpg"), is_image(np.zeros((8, 6, 3))), is_image(np.zeros((2, 8, 6, 3))), is_image([])
    (True, True, False, False)
    """
    if isinstance(given, np.ndarray) or _is_tensor(given):
        return given.ndim in (2, 3)
    return isinstance(given, str | os.PathLike | Image.Image)


def listed(given: Any) -> list[Any]:
    """Return images as a list, one image as a list of one."""
    return [given] if is_image(given) else list(given)


def pixels_of(image: ImageLike) -> np.ndarray:
    """Return the pixels of an image, (H, W, 3) uint8.

    Raises
    ------
    SessError
        If it is none, or it is not clear how it is to be read.
    """
    if isinstance(image, str | os.PathLike):
        return _read(image)
    if isinstance(image, Image.Image):
        return as_seen(image)
    array = _array_of(image) if _is_tensor(image) else np.asarray(image)
    if array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] == 3:
        return array
    shape = f"is {array.dtype} {array.shape}"
    if array.ndim == 3 and _is_tensor(image):
        array = _channels_last(array, shape)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS) or not array.size:
        raise SessError(f"{shape}: {KINDS}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # not a number, too
            raise SessError(f"{shape} from {array.min():.3g} to {array.max():.3g}: give floats of 0 to 1, or uint8")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise SessError(f"{shape}: {KINDS}")
    return np.asarray(to_rgb(Image.fromarray(array)))


def _is_tensor(given: Any) -> bool:
    return hasattr(given, "detach") and hasattr(given, "dtype")  # streams have the first


def _array_of(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()  # NumPy has no such type


def _channels_last(array: np.ndarray, shape: str) -> np.ndarray:
    first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if first and last:
        raise SessError(f"{shape}, and either side may be its channels: permute it to (H, W, 3), and give an array")
    return np.moveaxis(array, 0, 2) if first else array


def _read(place: str | os.PathLike[str]) -> np.ndarray:
    content = read_small(str(Path(place).expanduser()) if not isinstance(place, str) else place, "image")
    try:
        return as_seen(Image.open(io.BytesIO(content)))
    except SessError:
        raise
    except Exception as error:
        raise SessError(one_line(error)) from error
