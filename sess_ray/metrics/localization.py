"""Metrics that compare a map with where its target is annotated.

Maps are (H, W) in 0..1; a NaN counts as 0. Regions are (H, W) bool: the union of the target's boxes or segments. Boxes
are (n, 4) [x0, y0, x1, y1] in pixels, the last two exclusive; what is outside the image does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import ClassVar

import numpy as np
import torch

from sess_ray.blur import blurred, gaussian_kernel
from sess_ray.boxes import boxes_region  # noqa: F401 - part of what is public here
from sess_ray.errors import SessError
from sess_ray.metrics.metric import Metric

NEAR = 15.0  # pixels


def min_max(saliency: np.ndarray) -> np.ndarray:
    """Return a map stretched to 0..1, (H, W) float64; a constant map becomes all zeros, and a NaN counts as 0."""
    values = np.nan_to_num(np.asarray(saliency, np.float64))
    values = values - values.min()
    most = values.max()
    return values / most if most > 0 else values


def is_difficult(region: np.ndarray, others: bool) -> bool:
    """Say whether a target is difficult: under a quarter of the image, with at least one object of another class.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016.

    Parameters
    ----------
    region : ndarray, (H, W) bool
        All pixels of the target.
    others : bool
        Whether objects of other classes are in the image.
    """
    return bool(others and region.mean() < 0.25)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n, 4) with boxes (m, 4), (n, m); 0 if both are empty."""
    one, other = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    low, high = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    own, theirs = (np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (one, other))
    union = own[:, None] + theirs - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def largest_boxes(saliency: np.ndarray, thresholds: Sequence[float]) -> Iterator[tuple[int, int, int, int] | None]:
    """Yield, for ascending thresholds, the tight box around the largest part of a map that reaches the threshold.

    Parameters
    ----------
    saliency : ndarray, (H, W)
        It is stretched to 0..1.
    thresholds : sequence of float
        In 0..1, ascending. Pixels of at least that value count; neighbours, also diagonal ones, belong to one part. If
        parts have equally many pixels, the first one in row-major order counts.

    Yields
    ------
    (x0, y0, x1, y1) or None
        x1 and y1 are exclusive; None if the map is constant.

    Raises
    ------
    SessError
        If scipy is missing.
    """
    for boxes, sizes in _parts(saliency, thresholds):
        if len(sizes):
            x0, y0, x1, y1 = boxes[sizes.argmax()].tolist()
            yield x0, y0, x1, y1
        else:
            yield None


def part_boxes(saliency: np.ndarray, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
    """Yield, for ascending thresholds, the tight boxes around all parts of a map that reach the threshold.

    Parameters
    ----------
    saliency, thresholds
        As `largest_boxes` takes them.

    Yields
    ------
    ndarray, (n, 4) int
        x0, y0, x1, y1, the last two exclusive, in the row-major order of the parts' first pixels; (0, 4) if the map is
        constant.
    """
    return (boxes for boxes, _ in _parts(saliency, thresholds))


def _parts(saliency: np.ndarray, thresholds: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each threshold, the boxes of the parts that reach it, (n, 4), and their numbers of pixels, (n,)."""
    try:
        from scipy import ndimage  # type: ignore[import-untyped]
    except ImportError as error:
        raise SessError("boxes of maps: needs scipy: install sess-ray[evaluate]") from error
    values = scaled(saliency)
    constant = not values.any()
    offset, count = np.zeros(4, int), -1  # the corner of the rest of the map; its pixels that reach the threshold
    boxes, sizes = np.empty((0, 4), int), np.empty(0, int)
    for threshold in thresholds:
        mask = values >= np.float32(threshold)
        if not constant and (found := int(np.count_nonzero(mask))) != count:
            count = found
            # Pixels below this threshold are below all further ones.
            x0, y0, x1, y1 = _tight(mask)
            values, mask = values[y0:y1, x0:x1], mask[y0:y1, x0:x1]
            offset += (x0, y0, x0, y0)
            labels, _ = ndimage.label(mask, np.ones((3, 3)))
            places = ndimage.find_objects(labels)
            boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places], int) + offset
            sizes = np.bincount(labels.ravel())[1:]
        yield boxes, sizes


def _tight(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box around the pixels that are set, of which there is at least one."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def reaches(saliency: np.ndarray, threshold: float) -> np.ndarray:
    """Return which pixels of a map, stretched to 0..1, reach a threshold.

    Parameters
    ----------
    saliency : ndarray, (H, W)
    threshold : float
        In 0..1.

    Returns
    -------
    ndarray, (H, W) bool
        All False if the map is constant.
    """
    values = scaled(saliency)
    return values >= np.float32(threshold) if values.any() else np.zeros(values.shape, bool)


def scaled(saliency: np.ndarray) -> np.ndarray:
    """Return `min_max` in float32, in which a value of k / 255 equals a threshold of the same number."""
    return min_max(saliency).astype(np.float32)


def matching(saliency: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return the map without NaN; `SessError` if the region has another size."""
    if saliency.shape != region.shape or region.dtype != bool:
        raise SessError(
            f"a map {saliency.shape} and a region {region.shape} {region.dtype}: give a bool for each pixel"
        )
    return np.nan_to_num(saliency)


def peak_of(saliency: np.ndarray, smooth: float = 0.0) -> tuple[int, int]:
    """Return x and y of a map's maximum, the first one in row-major order.

    Parameters
    ----------
    saliency : ndarray, (H, W)
        NaN counts as 0.
    smooth : float
        Blur the map first with a Gaussian whose sigma is this share of the longer side, cut at 4 sigma, with border
        pixels repeated beyond the border, as TorchRay does.
    """
    values = np.nan_to_num(saliency)
    if smooth:
        sigma = smooth * max(values.shape)
        image = torch.from_numpy(np.array(values, np.float32))[None, None]
        values = blurred(image, gaussian_kernel(2 * ceil(4 * sigma) + 1, sigma), "replicate")[0, 0].numpy()
    y, x = np.unravel_index(values.argmax(), values.shape)
    return int(x), int(y)


class PointingGame(Metric):
    """Whether the maximum of a map is on or near the target, 1 or 0; the mean over classes of their hit rates.

    A map of all zeros or NaN points nowhere: 0. Zhang et al., Top-down Neural Attention by Excitation Backprop,
    ECCV 2016; the details as in TorchRay's benchmark (Fong et al., Extremal Perturbations, ICCV 2019).

    Parameters
    ----------
    tolerance : float
        A hit is a maximum on the target, or one whose centre is less than so many pixels from the centre of the
        target's nearest pixel.
    smooth : float
        Before its maximum is found, the map is blurred with a sigma of this share of its longer side (`peak_of`). The
        benchmark uses 0.02 for maps of pixel gradients, whose maximum would otherwise be a speck, and 0 for others.

    Examples
    --------
    >>> saliency = np.zeros((10, 40))
    >>> saliency[5, 30] = 1
    >>> game = PointingGame()
    >>> game.measure(saliency, boxes_region([[0, 0, 17, 10]], 10, 40))
    1.0
    >>> game.measure(saliency, boxes_region([[0, 0, 16, 10]], 10, 40))
    0.0
    """

    name: ClassVar[str] = "pointing_game"
    per_class = True

    def __init__(self, tolerance: float = NEAR, smooth: float = 0.0) -> None:
        super().__init__()
        if not tolerance >= 0:
            raise SessError(f"tolerance is {tolerance}: use 0 pixels or more")
        if not 0 <= smooth <= 1:
            raise SessError(f"smooth is {smooth}: use a share of the longer side, 0 to 1")
        self.tolerance = tolerance
        self.smooth = smooth

    def measure(self, saliency: np.ndarray, region: np.ndarray, peak: tuple[int, int] | None = None) -> float:
        """Return 1.0 for a hit, 0.0 for a miss.

        Parameters
        ----------
        saliency : ndarray, (H, W)
        region : ndarray, (H, W) bool
        peak : (int, int), optional
            x and y of the maximum, if it is known better than from the map, since a stored map has 8 bits. By default
            the result of `peak_of`.
        """
        saliency = matching(saliency, region)
        if not saliency.any():
            return 0.0
        x, y = peak_of(saliency, self.smooth) if peak is None else peak
        rows, columns = np.nonzero(region)
        apart = (rows - y) ** 2 + (columns - x) ** 2
        return float(((apart < self.tolerance**2) | (apart == 0)).any())


class DifficultPointingGame(PointingGame):
    """`PointingGame` on difficult targets: measure only those for which `is_difficult` is true."""

    name: ClassVar[str] = "pointing_game_difficult"


class EnergyPointingGame(Metric):
    """Share of a map's sum that lies in its target's boxes; 0 for a map of all zeros or NaN.

    Sharpening alone, such as squaring a map, raises it without any knowledge of the target: read it together with
    `PxAP`, which depends only on the order of pixels. Wang et al., Score-CAM, CVPR Workshops 2020.
    """

    name: ClassVar[str] = "energy_pointing_game"

    def measure(self, saliency: np.ndarray, region: np.ndarray) -> float:
        """Return the share, for a map (H, W) and a region (H, W) bool."""
        saliency = matching(saliency, region)
        whole = saliency.sum(dtype=np.float64)
        return float(saliency[region].sum(dtype=np.float64) / whole) if whole else 0.0
