"""Metrics that compare a map with where its target is annotated.

Maps are (H, W) in 0..1; a NaN counts as 0. Regions are (H, W) bool: the union of the target's boxes or segments. Boxes
are (n, 4) [x0, y0, x1, y1] in pixels, the last two exclusive; what lies outside the image does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np

from sess_ray.errors import SessError
from sess_ray.metrics.metric import Metric

THRESHOLDS = tuple(step / 20 for step in range(20))


def boxes_region(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which pixels have their centre in a box.

    Parameters
    ----------
    boxes : ndarray, (n, 4) float
        x0, y0, x1, y1 in pixels; a box of no extent covers nothing.
    height, width : int
        Of the image.

    Returns
    -------
    ndarray, (height, width) bool

    Examples
    --------
    >>> boxes_region([[0.5, 0, 2.6, 1], [3, -2, 9, 9]], 2, 4).astype(int)
    array([[1, 1, 1, 1],
           [0, 0, 0, 1]])
    """
    covered = np.zeros((height, width), bool)
    # The first centre x + 0.5 at or after an edge is that of the pixel ceil(edge - 0.5).
    for x0, y0, x1, y1 in np.ceil(_clipped(boxes, height, width) - 0.5).astype(int):
        covered[y0:y1, x0:x1] = True
    return covered


def min_max(saliency: np.ndarray) -> np.ndarray:
    """Return a map in 0..1, (H, W) float64; a constant map becomes all zeros, and a NaN counts as 0."""
    values = np.nan_to_num(np.asarray(saliency, np.float64))
    values = values - values.min()
    most = values.max()
    return values / most if most > 0 else values


def is_difficult(region: np.ndarray, others: bool) -> bool:
    """Say whether a target is difficult: under a quarter of the image, beside at least one object of another class.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016.

    Parameters
    ----------
    region : ndarray, (H, W) bool
        All of the target.
    others : bool
        Whether objects of other classes are in the image.
    """
    return bool(others and region.mean() < 0.25)


def box_iou(box: Sequence[float], boxes: np.ndarray) -> np.ndarray:
    """Return the intersection over union of a box, (4,), with each of `boxes`, (n, 4): (n,)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    own = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
    union = own + np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def largest_boxes(saliency: np.ndarray, thresholds: Sequence[float]) -> Iterator[tuple[int, int, int, int] | None]:
    """Yield, for ascending thresholds, the tight box around the largest part of a map that reaches the threshold.

    Parameters
    ----------
    saliency : ndarray, (H, W)
        Taken from 0 to 1 by its minimum and maximum.
    thresholds : sequence of float
        In 0..1, ascending. Pixels of at least that value count; neighbours, diagonal ones too, belong together. Of
        parts with equally many pixels the first one in row-major order counts.

    Yields
    ------
    (x0, y0, x1, y1) or None
        x1 and y1 exclusive; None where the map is constant.

    Raises
    ------
    SessError
        If scipy is missing.
    """
    values = _scaled(saliency)
    left, top = 0, 0  # of what is left of the map
    count, box = -1, None
    constant = not values.any()
    for threshold in thresholds:
        if constant:
            yield None
            continue
        mask = values >= np.float32(threshold)
        if (found := int(np.count_nonzero(mask))) != count:
            count = found
            # What is below this threshold is below all further ones.
            x0, y0, x1, y1 = _tight(mask)
            values, mask = values[y0:y1, x0:x1], mask[y0:y1, x0:x1]
            left, top = left + x0, top + y0
            x0, y0, x1, y1 = _tight(_largest_part(mask))
            box = left + x0, top + y0, left + x1, top + y1
        yield box


def _largest_part(mask: np.ndarray) -> np.ndarray:
    if mask.all():
        return mask
    try:
        from scipy import ndimage  # type: ignore[import-untyped]
    except ImportError as error:
        raise SessError("boxes of maps: needs scipy: install sess-ray[evaluate]") from error
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if count == 1:
        return mask
    return labels == np.bincount(labels[mask]).argmax()


def _tight(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box around what is set; something is."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def reaches(saliency: np.ndarray, threshold: float) -> np.ndarray:
    """Return which pixels of a map, taken from 0 to 1 by its minimum and maximum, reach a threshold.

    Parameters
    ----------
    saliency : ndarray, (H, W)
    threshold : float
        In 0..1.

    Returns
    -------
    ndarray, (H, W) bool
        None where the map is constant.
    """
    values = _scaled(saliency)
    return values >= np.float32(threshold) if values.any() else np.zeros(values.shape, bool)


def _scaled(saliency: np.ndarray) -> np.ndarray:
    """Return `min_max` in float32: there a value of k / 255 equals the threshold that is the same number."""
    return min_max(saliency).astype(np.float32)


def _clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])


def _matching(saliency: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return the map without NaN, if the region is one of its pixels."""
    if saliency.shape != region.shape or region.dtype != bool:
        raise SessError(
            f"a map {saliency.shape} and a region {region.shape} {region.dtype}: give a bool for each pixel"
        )
    return np.nan_to_num(saliency)


class PointingGame(Metric):
    """Whether the maximum of a map is on the target or near it: 1 or 0; the mean over classes of their hit rates.

    A map of all zeros or NaN points nowhere: 0. Zhang et al., Top-down Neural Attention by Excitation Backprop,
    ECCV 2016.

    Parameters
    ----------
    tolerance : float
        Pixels between the centres of the maximum and of the nearest pixel of the target, inclusive.

    Examples
    --------
    >>> saliency = np.zeros((10, 40))
    >>> saliency[5, 30] = 1
    >>> game = PointingGame()
    >>> game.measure(saliency, boxes_region([[0, 0, 16, 10]], 10, 40))
    1.0
    >>> game.measure(saliency, boxes_region([[0, 0, 15, 10]], 10, 40))
    0.0
    """

    name: ClassVar[str] = "pointing_game"
    per_class = True

    def __init__(self, tolerance: float = 15.0) -> None:
        super().__init__()
        if not tolerance >= 0:
            raise SessError(f"tolerance is {tolerance}: use 0 pixels or more")
        self.tolerance = tolerance

    def measure(self, saliency: np.ndarray, region: np.ndarray, peak: tuple[int, int] | None = None) -> float:
        """Return 1.0 for a hit, 0.0 for a miss.

        Parameters
        ----------
        saliency : ndarray, (H, W)
        region : ndarray, (H, W) bool
        peak : (int, int), optional
            x and y of the maximum, where it is known better than from the map: a stored map has 8 bits. By default the
            first maximum in row-major order.
        """
        saliency = _matching(saliency, region)
        if not saliency.any():
            return 0.0
        y, x = np.unravel_index(saliency.argmax(), saliency.shape) if peak is None else peak[::-1]
        rows, columns = np.nonzero(region)
        return float(((rows - y) ** 2 + (columns - x) ** 2 <= self.tolerance**2).any())


class DifficultPointingGame(PointingGame):
    """`PointingGame` on difficult targets: measure those for which `is_difficult`."""

    name: ClassVar[str] = "pointing_game_difficult"


class EnergyPointingGame(Metric):
    """Share of a map's sum that lies in its target's boxes; 0 for a map of all zeros or NaN.

    Wang et al., Score-CAM, CVPR Workshops 2020.
    """

    name: ClassVar[str] = "energy_pointing_game"

    def measure(self, saliency: np.ndarray, region: np.ndarray) -> float:
        """Return the share, for a map (H, W) and a region (H, W) bool."""
        saliency = _matching(saliency, region)
        whole = saliency.sum(dtype=np.float64)
        return float(saliency[region].sum(dtype=np.float64) / whole) if whole else 0.0


class _AtThresholds(Metric):
    """The mean over maps at the threshold where it is largest."""

    curve = True

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        self.thresholds = tuple(map(float, thresholds))
        ascending = all(low < high for low, high in pairwise(self.thresholds))
        if not self.thresholds or not ascending or self.thresholds[0] < 0 or self.thresholds[-1] > 1:
            raise SessError(f"thresholds are {self.thresholds}: use ascending ones in 0..1")

    def reduce(self, means: np.ndarray) -> np.ndarray:
        return means.max(-1)

    def best_threshold(self) -> float:
        """Return the threshold where the mean over all maps is largest, the lowest of several; NaN without maps."""
        return self.thresholds[self.means()[0].argmax()] if self.n else float("nan")


class MaxBoxAcc(_AtThresholds):
    """Share of maps whose box fits one of the target's boxes, at the best of all thresholds.

    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020. The box is that of the
    largest connected part of the map, taken from 0 to 1, that reaches the threshold. As the paper has it: their release
    rounds maps to 8 bits and takes what exceeds the threshold, ranks parts by the area within their outlines, and has
    boxes a pixel larger. At threshold 0 the box is the whole image. A constant map has no box, and a value of 0
    throughout.

    Parameters
    ----------
    thresholds : sequence of float
        Ascending, in 0..1.
    iou : float
        Intersection over union from which on boxes fit.
    """

    name: ClassVar[str] = "max_box_acc"

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, iou: float = 0.5) -> None:
        super().__init__(thresholds)
        self.iou = iou

    def measure(self, saliency: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return 1.0 or 0.0 at each threshold, for a map (H, W) and boxes (n, 4)."""
        return _fits(saliency, boxes, self.thresholds, self.iou)


class CorLoc(Metric):
    """Share of maps whose box fits one of the target's boxes at one threshold: 1 or 0; boxes as in `MaxBoxAcc`.

    Deselaers et al., Weakly Supervised Localization and Learning with Generic Knowledge, IJCV 2012.

    Parameters
    ----------
    threshold : float
        By default a fifth of the maximum: Zhou et al., Learning Deep Features, CVPR 2016.
    iou : float
        Intersection over union from which on boxes fit.
    """

    name: ClassVar[str] = "corloc"

    def __init__(self, threshold: float = 0.2, iou: float = 0.5) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise SessError(f"threshold is {threshold}: use a share of the maximum, 0 to 1")
        self.threshold = threshold
        self.iou = iou

    def measure(self, saliency: np.ndarray, boxes: np.ndarray) -> float:
        """Return 1.0 or 0.0 for a map (H, W) and boxes (n, 4)."""
        return float(_fits(saliency, boxes, [self.threshold], self.iou)[0])


def _fits(saliency: np.ndarray, boxes: np.ndarray, thresholds: Sequence[float], iou: float) -> np.ndarray:
    boxes = _clipped(boxes, *saliency.shape)
    found = largest_boxes(saliency, thresholds)
    return np.array([float(box is not None and (box_iou(box, boxes) >= iou).any()) for box in found])


class MaskIoU(_AtThresholds):
    """Intersection over union of the target and of what reaches a threshold, at the best of all thresholds: peak IoU.

    Maps are taken from 0 to 1; a constant map has a value of 0 at all thresholds.

    Parameters
    ----------
    thresholds : sequence of float
        Ascending, in 0..1.
    """

    name: ClassVar[str] = "mask_iou"

    def measure(self, saliency: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return the intersection over union at each threshold, for a map (H, W) and a region (H, W) bool."""
        values = _scaled(_matching(saliency, region))
        if not values.any():
            return np.zeros(len(self.thresholds))
        target = np.count_nonzero(region)
        found = []
        for threshold in self.thresholds:
            mask = values >= np.float32(threshold)
            shared = np.count_nonzero(mask & region)
            found.append(shared / (np.count_nonzero(mask) + target - shared))
        return np.array(found)
