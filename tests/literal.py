"""SESS as literally as it can be written: one window at a time, two passes, full-size masks, float64 maps.

Derived from the definitions alone; nothing of sess_ray is used.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as TF


def both(size):
    """Height and width of a square given by its side, or of what is given as such."""
    return size if isinstance(size, tuple) else (size, size)


def windows(height, width, window, step):
    """Row-major (y, x) of one scale: step by step, the last one moved back to the border."""

    def axis(length, window, step):
        found = []
        at = 0
        while True:
            if at + window >= length:
                found.append(length - window)
                return found
            found.append(at)
            at += step

    ys, xs = map(axis, (height, width), both(window), both(step))
    return [(y, x) for y in ys for x in xs]


def scaled_sizes(height, width, window, num_scales):
    """The paper's scales of a square window; of another the smallest that cover it, enlarged like a square as large."""
    sizes = []
    for i in range(num_scales):
        if isinstance(window, tuple):
            side = (window[0] * window[1]) ** 0.5
            least = [length + int(length * 64 * i / side) for length in window]
            tall, wide = (least[0], least[0] * width // height), (least[1] * height // width, least[1])
            sizes.append(tall if tall[1] >= least[1] else wide)
            continue
        short = window + 64 * i
        if height <= width:
            sizes.append((short, int(short * width / height)))
        else:
            sizes.append((int(short * height / width), short))
    return sizes


def grad_cam(module, layer, patch, target):
    """Grad-CAM of one patch by a whole backward pass, up-sampled to the patch, min-max."""
    kept = {}
    handle = module.get_submodule(layer).register_forward_hook(
        lambda _, __, out: kept.update(a=out.clone()) or kept["a"].clone()
    )
    with torch.enable_grad():
        patch = patch[None].clone().requires_grad_()
        logit = module(patch)[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept["a"])
    weights = gradient.mean((2, 3), keepdim=True)
    low = (weights * kept["a"]).sum(1, keepdim=True).relu().detach()
    up = F.interpolate(low.double(), size=patch.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    spread = up.max() - up.min()
    return (up - up.min()) / spread if spread > 0 else torch.zeros_like(up)


def calibrated(value, y, x, scaled, size):
    """Paste a map into zeros of the scaled image's size, and resize that to the image."""
    mask = torch.zeros(1, 1, *scaled, dtype=torch.float64)
    mask[0, 0, y : y + value.shape[0], x : x + value.shape[1]] = value
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False)[0, 0]


def fused(masks, coverage, fusion):
    if fusion == "seamless":
        total = sum(coverage)
        return torch.where(total > 0, sum(masks) / total, 0.0)
    total = sum(mask * (mask > 0) for mask in masks)
    count = sum((mask > 0).double() for mask in masks)
    return torch.where(count > 0, total / count.clamp(min=1), 0.0)


def guided_windows(scaled, windows, window, guide, share):
    """The windows of a scale with the highest mean of the map so far, each pixel of which counts by the area inside."""
    height, width = guide.shape

    def inside(start, length, scaled_length, window):
        """Return for each pixel along an axis how much of it lies in the window."""
        share = []
        for pixel in range(length):
            low, high = pixel * scaled_length / length, (pixel + 1) * scaled_length / length
            share.append(max(0.0, min(high, start + window) - max(low, start)))
        return np.array(share)

    means = []
    for y, x in windows:
        down, across = both(window)
        area = np.outer(inside(y, height, scaled[0], down), inside(x, width, scaled[1], across))
        means.append((area * guide).sum() / area.sum())
    count = max(1, -int(-round(share * len(windows), 9) // 1))
    return sorted(sorted(range(len(windows)), key=lambda place: (-means[place], place))[:count])


def guided(module, layer, pixels, target, *, window, mean, std, num_scales, whole, share):
    """Return the set of windows that are scored, as indices among all."""
    height, width = pixels.shape[:2]
    image = TF.normalize(torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255, mean, std)
    small = [min(round(64 * side / min(height, width)), 512) for side in (height, width)]
    total, covered = np.zeros(small), np.zeros(small)
    scored, first = set(), 0
    for number, scaled in enumerate(scaled_sizes(height, width, window, num_scales)):
        resized = TF.resize(image, list(scaled), antialias=True).float()
        places = windows(*scaled, window, window)
        chosen = range(len(places))
        if number >= whole:
            guide = np.divide(total, covered, out=np.zeros_like(total), where=covered > 0)
            chosen = guided_windows(scaled, places, window, guide, share)
        for place, (y, x) in enumerate(places):
            covered += calibrated(torch.ones(both(window), dtype=torch.float64), y, x, scaled, small).numpy()
            if place in chosen:
                patch = resized[:, y : y + both(window)[0], x : x + both(window)[1]]
                with torch.no_grad():
                    score = module(patch[None]).softmax(1)[0, target].item()
                total += calibrated(score * grad_cam(module, layer, patch, target), y, x, scaled, small).numpy()
                scored.add(first + place)
        first += len(places)
    return scored


def smoothed(values):
    """Gaussian 11 x 11, sigma 5, mirrored border, as one two-dimensional sum."""
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 5.0**2))
    kernel /= kernel.sum()
    padded = np.pad(values, 5, mode="reflect") if min(values.shape) > 1 else np.pad(values, 5, mode="symmetric")
    height, width = values.shape
    result = np.zeros_like(values)
    for i in range(11):
        for j in range(11):
            result += kernel[i, j] * padded[i : i + height, j : j + width]
    return result


def sess(module, layer, pixels, target, *, window, mean, std, num_scales, step, ratio, fusion, size=None):
    """Return (map (H, W) float64, of the image's size or another, scores, kept indices)."""
    height, width = pixels.shape[:2]
    size = size or (height, width)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255
    image = TF.normalize(image, mean, std)
    patches, places = [], []
    for scaled in scaled_sizes(height, width, window, num_scales):
        resized = TF.resize(image, list(scaled), antialias=True).float()
        for y, x in windows(*scaled, window, step):
            patches.append(resized[:, y : y + both(window)[0], x : x + both(window)[1]])
            places.append((scaled, y, x))
    with torch.no_grad():
        scores = [module(patch[None]).softmax(1)[0, target].item() for patch in patches]
    kept = np.argsort(scores, kind="stable")[min(int(len(scores) * ratio), len(scores) - 1) :]
    masks = []
    for index in sorted(kept):
        scaled, y, x = places[index]
        value = grad_cam(module, layer, patches[index], target) * (scores[index] / max(scores))
        masks.append(calibrated(value, y, x, scaled, size))
    ones = torch.ones(both(window), dtype=torch.float64)
    coverage = [calibrated(ones, y, x, scaled, size) for scaled, y, x in places] if fusion == "seamless" else []
    return fused(masks, coverage, fusion).numpy(), np.array(scores), set(kept.tolist())
