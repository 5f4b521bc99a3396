"""Family R: XRAI, attributions gathered in regions of the patch."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sess_ray.methods.gradients import Rule, attributions
from sess_ray.methods.registry import register
from sess_ray.models import Model

SCALES = (50, 100, 150, 250, 500, 1200)  # for Felzenszwalb & Huttenlocher's segmentation
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
    reaches="pixels",
    paper="Kapishnikov et al., XRAI, ICCV 2019",
    passes="200 forwards + backwards",
    check=_has_segmentation,
)
def xrai(
    model: Model,
    patches: Tensor,
    targets: Tensor,
    *,
    steps: int = 100,
    baselines: Literal["black_white", "extremes"] = "black_white",
    rule: Rule = "midpoint",
    segment_at: Literal["patch", "224"] = "patch",
) -> Tensor:
    """Give each region of the patch the mean attribution of the pixels that it adds, the best region first.

    A pixel's attribution is the largest of its three colours' integrated gradients, averaged over two baselines: a
    black and a white patch. PAIR-code/saliency corresponds to ``baselines="extremes"`` (the smallest and the largest
    number of the normalised patch in all three colours), ``rule="linspace"`` (see `integrated_gradients`) and
    ``segment_at="224"`` (the patch is segmented at 224 x 224 pixels, and the segments are resized to the patch).
    """
    found = torch.zeros(patches.shape, device=patches.device)
    for baseline in _baselines(model, patches, baselines):
        found += attributions(model, patches, targets, baseline.to(patches.dtype), steps, rule) / 2
    side = None if segment_at == "patch" else int(segment_at)
    maps = [
        ranked(values, regions(patch, side))
        for values, patch in zip(
            found.amax(1).double().cpu().numpy(), patches.float().permute(0, 2, 3, 1).cpu().numpy(), strict=True
        )
    ]
    return torch.from_numpy(np.stack(maps)).float().to(patches.device)


def _baselines(model: Model, patches: Tensor, kind: str) -> list[Tensor]:
    """Return a dark and a bright patch of one colour for each patch."""
    if kind == "extremes":
        ends = (patches.amin((1, 2, 3)), patches.amax((1, 2, 3)))
        return [end[:, None, None, None].expand(patches.shape) for end in ends]
    colours = [[(shade - mean) / std for mean, std in zip(model.mean, model.std, strict=True)] for shade in (0.0, 1.0)]
    return [torch.tensor(colour, device=patches.device).view(1, 3, 1, 1).expand(patches.shape) for colour in colours]


def regions(patch: np.ndarray, side: int | None = None) -> np.ndarray:
    """Segment a patch at all scales.

    Parameters
    ----------
    patch : numpy.ndarray, (h, w, 3) float
    side : int, optional
        Segment it at `side` x `side` pixels. By default at its own size.

    Returns
    -------
    numpy.ndarray, (M, h, w) bool
        Overlapping regions: every segment, grown by 5 pixels.
    """
    from skimage.measure import regionprops
    from skimage.morphology import isotropic_dilation
    from skimage.segmentation import felzenszwalb
    from skimage.transform import resize

    low, high = patch.min(), patch.max()
    scaled = (patch - low) / (high - low if high > low else 1) * 2 - 1
    resized = side is not None and patch.shape[:2] != (side, side)
    if resized:
        scaled = resize(scaled, (side, side), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    segmentation: Any = felzenszwalb
    boxes: Any = regionprops
    found = []
    for scale in SCALES:
        labels = segmentation(scaled, scale=scale, sigma=SIGMA, min_size=SMALLEST)
        if resized:
            labels = resize(labels, patch.shape[:2], order=0, mode="constant", preserve_range=True, anti_aliasing=False)
            labels = np.unique(labels, return_inverse=True)[1].reshape(patch.shape[:2])  # a reduced one may lack some
        masks = np.zeros((labels.max() + 1, *labels.shape), bool)
        for label, region in enumerate(boxes(labels + 1)):  # label 0 would not be a region
            top, left, bottom, right = region.bbox
            # A region cannot grow beyond its box by more than the radius.
            near = np.s_[max(top - DILATION, 0) : bottom + DILATION, max(left - DILATION, 0) : right + DILATION]
            masks[label][near] = isotropic_dilation(labels[near] == label, DILATION)
        found.append(masks)
    return np.concatenate(found)


def ranked(attribution: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Add regions, always the one whose new pixels have the largest mean attribution, and give these pixels this mean.

    Parameters
    ----------
    attribution : numpy.ndarray, (h, w) float64
    candidates : numpy.ndarray, (M, h, w) bool

    Returns
    -------
    numpy.ndarray, (h, w) float64
        Pixels that no region has added, because it would have added fewer than 50, get the mean of all such pixels.
    """
    values = attribution.ravel()
    masks = candidates.reshape(len(candidates), -1)
    counts = masks.sum(1)
    sums = masks @ values
    left = np.ones(len(values), bool)
    result = np.empty(len(values))
    while (counts >= FEWEST_NEW).any():
        # A region's new pixels can only become fewer, so one with too few is out for good.
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
