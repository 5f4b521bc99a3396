"""Family R: XRAI, attributions gathered in regions of the patch."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sess_ray.methods.gradients import attributions
from sess_ray.methods.registry import register
from sess_ray.models import Model

SCALES = (50, 100, 150, 250, 500, 1200)  # of Felzenszwalb & Huttenlocher's segmentation
SIGMA, SMALLEST = 0.8, 150
DILATION = 5
FEWEST_NEW = 50  # pixels that a region must add


def _has_segmentation(_: Model) -> str | None:
    if importlib.util.find_spec("skimage"):
        return None
    return "its regions need scikit-image, which is not installed (pip install scikit-image)"


@register(
    "xrai",
    family="R",
    paper="Kapishnikov et al., XRAI, ICCV 2019",
    passes="200 forwards + backwards",
    check=_has_segmentation,
)
def xrai(model: Model, patches: Tensor, targets: Tensor, *, steps: int = 100) -> Tensor:
    """Regions of the patch, each with the mean attribution of the pixels that it adds, the best region first.

    Attributions are integrated gradients from a black and from a white patch, their mean, the largest colour.
    """
    found = torch.zeros(patches.shape, device=patches.device)
    for shade in (0.0, 1.0):
        colour = [(shade - mean) / std for mean, std in zip(model.mean, model.std, strict=True)]
        baseline = torch.tensor(colour, device=patches.device).view(1, 3, 1, 1).expand(patches.shape)
        found += attributions(model, patches, targets, baseline.to(patches.dtype), steps) / 2
    maps = [
        ranked(values, regions(patch))
        for values, patch in zip(
            found.amax(1).double().cpu().numpy(), patches.float().permute(0, 2, 3, 1).cpu().numpy(), strict=True
        )
    ]
    return torch.from_numpy(np.stack(maps)).float().to(patches.device)


def regions(patch: np.ndarray) -> np.ndarray:
    """Segment a patch (h, w, 3) at all scales; return overlapping regions (M, h, w) bool."""
    from skimage.measure import regionprops
    from skimage.morphology import isotropic_dilation
    from skimage.segmentation import felzenszwalb

    low, high = patch.min(), patch.max()
    scaled = (patch - low) / (high - low if high > low else 1) * 2 - 1
    segmentation: Any = felzenszwalb
    boxes: Any = regionprops
    found = []
    for scale in SCALES:
        labels = segmentation(scaled, scale=scale, sigma=SIGMA, min_size=SMALLEST)
        masks = np.zeros((labels.max() + 1, *labels.shape), bool)
        for label, region in enumerate(boxes(labels + 1)):  # label 0 would be no region
            top, left, bottom, right = region.bbox
            # Beyond its box and the radius a region can not grow.
            near = np.s_[max(top - DILATION, 0) : bottom + DILATION, max(left - DILATION, 0) : right + DILATION]
            masks[label][near] = isotropic_dilation(labels[near] == label, DILATION)
        found.append(masks)
    return np.concatenate(found)


def ranked(attribution: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Add regions greedily by the mean attribution of their new pixels, which they are given.

    Parameters
    ----------
    attribution : numpy.ndarray, (h, w) float64
    candidates : numpy.ndarray, (M, h, w) bool

    Returns
    -------
    numpy.ndarray, (h, w) float64
        Pixels of no region that added 50 new ones have the mean attribution of them all.
    """
    values = attribution.ravel()
    masks = candidates.reshape(len(candidates), -1)
    counts = masks.sum(1)
    sums = masks @ values
    left = np.ones(len(values), bool)
    result = np.empty(len(values))
    while (counts >= FEWEST_NEW).any():
        # What a region would add only shrinks, so that one with too little is out for good.
        gains = np.where(counts >= FEWEST_NEW, sums / np.maximum(counts, 1), -np.inf)
        best = int(gains.argmax())
        new = np.flatnonzero(masks[best] & left)
        result[new] = gains[best]
        left[new] = False
        taken = masks[:, new]
        counts = counts - taken.sum(1)
        sums = sums - taken @ values[new]
    if left.any():
        result[left] = values[left].mean()
    return result.reshape(attribution.shape)
