"""Metrics of maps at thresholds: boxes and masks at each, and the average precision of pixels over all.

Their arguments are those of `sess_ray.metrics.localization`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np

from sess_ray.boxes import clipped
from sess_ray.errors import SessError
from sess_ray.metrics.localization import box_iou, largest_boxes, matching, part_boxes, scaled
from sess_ray.metrics.metric import Metric

THRESHOLDS = tuple(step / 20 for step in range(20))
# Maps of pixel gradients are dark but for specks: their best threshold lies between those of 0.05 (on 65 images, guided
# backprop has a MaxBoxAccV2 of 53.8 % at those and 57.4 % at these; Grad-CAM 49.7 % at both).
FINE = tuple(step / 100 for step in range(100))


class AtThresholds(Metric):
    """The mean over maps, at the threshold where this mean is largest."""

    curve = True

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        self.thresholds = tuple(map(float, thresholds))
        ascending = all(low < high for low, high in pairwise(self.thresholds))
        if not self.thresholds or not ascending or self.thresholds[0] < 0 or self.thresholds[-1] > 1:
            raise SessError(f"thresholds are {self.thresholds}: use ascending ones in 0..1")

    @property
    def numbers(self) -> int:
        return len(self.thresholds)

    def reduce(self, means: np.ndarray) -> np.ndarray:
        return means.max(-1)

    def best_threshold(self) -> float:
        """Return the threshold where the mean over all maps is largest (the lowest, if several); NaN without maps."""
        return self.best_at(self.means()[0]) if self.n else float("nan")

    def best_at(self, means: np.ndarray) -> float:
        """Return the threshold where means of `measure`'s values are largest (the lowest, if several)."""
        return self.thresholds[int(means.argmax())]


class MaxBoxAcc(AtThresholds):
    """Share of maps whose box fits one of the target's boxes, at the best of all thresholds.

    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020. The box is that of the
    largest connected part of the map, stretched to 0..1, that reaches the threshold. This follows the paper; the
    release rounds maps to 8 bits and takes what exceeds the threshold, ranks parts by the area within their outlines,
    and makes boxes a pixel larger. At threshold 0 the box is the whole image. A constant map has no box, and a value of
    0 throughout.

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


class MaxBoxAccV2(AtThresholds):
    """Mean, over three values of IoU (intersection over union), of `MaxBoxAcc` with the boxes of all parts of the map.

    Choe et al., Evaluation for Weakly Supervised Object Localization: Protocol, Metrics, and Datasets, TPAMI 2022. At
    each threshold a map is right if the box of any of its connected parts fits a box of the target; each IoU has its
    own best threshold. The release also makes boxes of holes, and differs as said for `MaxBoxAcc`.

    Parameters
    ----------
    thresholds : sequence of float
        Ascending, in 0..1.
    ious : sequence of float
        Intersections over union from which on boxes fit.
    """

    name: ClassVar[str] = "max_box_acc_v2"

    def __init__(self, thresholds: Sequence[float] = FINE, ious: Sequence[float] = (0.3, 0.5, 0.7)) -> None:
        super().__init__(thresholds)
        self.ious = tuple(map(float, ious))

    def measure(self, saliency: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return 1.0 or 0.0, (ious x thresholds,), the first IoU first, for a map (H, W) and boxes (n, 4)."""
        truth = clipped(boxes, *saliency.shape)
        best = [box_iou(found, truth).max(initial=0.0) for found in part_boxes(saliency, self.thresholds)]
        return np.array([float(value >= iou) for iou in self.ious for value in best])

    @property
    def numbers(self) -> int:
        return len(self.ious) * len(self.thresholds)

    def reduce(self, means: np.ndarray) -> np.ndarray:
        return self._by_iou(means).max(-1).mean(-1)

    def best_at(self, means: np.ndarray) -> float:
        """Return the threshold where means over maps and IoUs are largest (the lowest, if several)."""
        return self.thresholds[int(self._by_iou(means).mean(0).argmax())]

    def _by_iou(self, means: np.ndarray) -> np.ndarray:
        return means.reshape(*means.shape[:-1], len(self.ious), len(self.thresholds))


class CorLoc(Metric):
    """Share of maps whose box fits one of the target's boxes, at a fixed threshold; boxes as in `MaxBoxAcc`.

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
    boxes = clipped(boxes, *saliency.shape)
    found = largest_boxes(saliency, thresholds)
    return np.array([float(box is not None and (box_iou(np.array(box), boxes) >= iou).any()) for box in found])


class MaskIoU(AtThresholds):
    """Intersection over union of the target with the pixels that reach a threshold, at the best threshold: peak IoU.

    Maps are stretched to 0..1; a constant map has a value of 0 at all thresholds.

    Parameters
    ----------
    thresholds : sequence of float
        Ascending, in 0..1.
    """

    name: ClassVar[str] = "mask_iou"

    def measure(self, saliency: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return the intersection over union at each threshold, for a map (H, W) and a region (H, W) bool."""
        values = scaled(matching(saliency, region))
        if not values.any():
            return np.zeros(len(self.thresholds))
        target = np.count_nonzero(region)
        found = []
        for threshold in self.thresholds:
            mask = values >= np.float32(threshold)
            shared = np.count_nonzero(mask & region)
            found.append(shared / (np.count_nonzero(mask) + target - shared))
        return np.array(found)


class PxAP(Metric):
    """Average precision of a map's pixels as a detector of the target's pixels; the mean over maps.

    Precision and recall at every value that the map has, as in Choe et al., Evaluating Weakly Supervised Object
    Localization Methods Right, CVPR 2020, who pool the pixels of all images (`PooledPxAP`). It depends only on the
    order of pixels, so no change of a map's contrast affects it. A constant map has the precision of the whole image.
    """

    name: ClassVar[str] = "pxap"

    def measure(self, saliency: np.ndarray, region: np.ndarray, ignored: np.ndarray | None = None) -> float:
        """Return the average precision in 0..1; 0 if the region is empty.

        Parameters
        ----------
        saliency : ndarray, (H, W)
        region : ndarray, (H, W) bool
        ignored : ndarray, (H, W) bool, optional
            Pixels that do not count.
        """
        values, inside = _counting(saliency, region, ignored)
        _, places = np.unique(values, return_inverse=True)
        found, all_ = (np.bincount(places, weights)[::-1] for weights in (inside, np.ones(len(inside))))
        return float(_average_precision(found, all_))


class PooledPxAP(Metric):
    """Average precision of the pixels of all maps together: PxAP as in the release of Choe et al. (CVPR 2020).

    Each map is stretched to 0..1, then all pixels share the same thresholds. Large images weigh more than small ones.

    Parameters
    ----------
    interval : float
        Distance between one threshold and the next.
    """

    name: ClassVar[str] = "pxap_pooled"
    curve = True

    def __init__(self, interval: float = 0.01) -> None:
        super().__init__()
        if not 0 < interval <= 1:
            raise SessError(f"interval is {interval}: use more than 0, at most 1")
        self.thresholds = np.append(np.arange(0, 1, interval), 1.0).astype(np.float32)

    def measure(self, saliency: np.ndarray, region: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
        """Return how many pixels of the target, then how many others, lie between thresholds: (2 thresholds,).

        Parameters
        ----------
        saliency, region, ignored
            As `PxAP` takes them.
        """
        values, inside = _counting(saliency, region, ignored)
        bins = np.searchsorted(self.thresholds, values, side="right") - 1
        counts = [np.bincount(bins[own], minlength=len(self.thresholds)) for own in (inside, ~inside)]
        return np.concatenate(counts).astype(np.float64)

    @property
    def numbers(self) -> int:
        return 2 * len(self.thresholds)

    def reduce(self, means: np.ndarray) -> np.ndarray:
        inside, outside = np.split(means[..., ::-1], 2, axis=-1)[::-1]
        found = _average_precision(inside, inside + outside)
        return np.where(np.isnan(means[..., 0]), np.nan, found)  # of a replicate without maps


def _counting(saliency: np.ndarray, region: np.ndarray, ignored: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the pixels that count, and whether each is the target's."""
    values = scaled(matching(saliency, region))
    return (values.ravel(), region.ravel()) if ignored is None else (values[~ignored], region[~ignored])


def _average_precision(found: np.ndarray, all_: np.ndarray) -> np.ndarray:
    """Return the sum of precision times gain in recall, from counts (..., values) of the target's and of all pixels."""
    reached, seen = found.cumsum(-1), all_.cumsum(-1)
    precision = np.divide(reached, seen, out=np.zeros_like(reached), where=seen > 0)
    total = reached[..., -1]
    return np.divide((precision * found).sum(-1), total, out=np.zeros_like(total), where=total > 0)
