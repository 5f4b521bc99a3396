"""Scores while a map changes its image, by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from torch import nn

import sess_ray
from sess_ray.metrics.perturbation import (
    Deletion,
    Insertion,
)
from tests import nets

CPU = torch.device("cpu")
CURVES = [(kind, preset) for kind in (Insertion, Deletion) for preset in ("rise", "groupcam")]
TARGETS = (3, 0, 4)


def maps(count, seed=0):
    """Return maps (count, SIDE, SIDE) in 0..1 of few values, so that many pixels tie."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 12, (count, nets.SIDE, nets.SIDE)) / 11).float()


def blurred_by_hand(image, preset):
    """Return the blur of an image (3, h, w), float64, as one two-dimensional sum."""
    if preset == "rise":
        delta = np.zeros((11, 11))
        delta[5, 5] = 1
        kernel = scipy.ndimage.gaussian_filter(delta, 5)
        return np.stack([scipy.signal.convolve2d(channel, kernel, mode="same") for channel in image])
    offsets = np.arange(-25, 26)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 50.0**2))
    padded = np.pad(image, ((0, 0), (25, 25), (25, 25)), mode="reflect")
    return np.stack([scipy.signal.convolve2d(channel, kernel / kernel.sum(), mode="valid") for channel in padded])


def curve_by_hand(kind, preset, module, image, saliency, target):
    """Return the scores of a curve, changing one pixel at a time."""
    image, saliency = image.double().numpy(), saliency.numpy()
    step = 256  # 8 rows of 32 pixels
    if kind is Deletion:
        now, goal = copy.deepcopy(image), np.zeros_like(image)
    else:
        now, goal = blurred_by_hand(image, preset), image
    pixels = [(y, x) for y in range(nets.SIDE) for x in range(nets.SIDE)]
    pixels.sort(key=lambda at: -saliency[at])  # stable
    scores = [nets.probability(module, torch.from_numpy(now), target).item()]
    while pixels:
        for y, x in pixels[:step]:
            now[:, y, x] = goal[:, y, x]
        del pixels[:step]
        scores.append(nets.probability(module, torch.from_numpy(now), target).item())
    return np.array(scores)


class Bright(nn.Module):
    """Logits (ln 3 times the mean of red in a few rows, 0)."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.light = nn.Identity()

    def forward(self, x):
        logit = math.log(3) * self.light(x)[:, 0, self.rows].mean((1, 2))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def bright(rows):
    model = sess_ray.load_model(Bright(rows), layer="light", input_size=nets.SIDE)
    return model.prepared(CPU, "fp32")


# Four steps of 8 rows. With those rows white the probability is 3/4, without them 1/2; half of them, sqrt(3) / (1 +
# sqrt(3)). An area is (first / 2 + three in the middle + last / 2) / 4.
THIRD = slice(16, 24)
