"""Images whose truth is known: one or two figures on a photograph, each of a hue, a pattern and an outline.

A figure's class is its hue and its pattern, which is drawn to the figure's size; its outline says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RED, GREEN, BLUE = [0.85, 0.15, 0.15], [0.15, 0.65, 0.2], [0.2, 0.3, 0.9]
YELLOW, GREY, PINK = [0.9, 0.85, 0.2], [0.9, 0.9, 0.9], [0.9, 0.4, 0.9]
HUES = np.array([(RED, YELLOW), (GREEN, GREY), (BLUE, PINK)])  # of a figure's marks, and between them
PATTERNS = 3  # stripes, checks, dots
CLASSES = len(HUES) * PATTERNS


@dataclass(frozen=True)
class Scenes:
    """Images (n, side, side, 3), their figures' classes (n, 2), -1 for none, and the pixels (n, 2, side, side)."""

    images: np.ndarray
    classes: np.ndarray
    masks: np.ndarray

    def of_two(self, count: int) -> Scenes:
        """Return the first images that show two figures."""
        rows = np.flatnonzero(self.classes[:, 1] >= 0)[:count]
        return Scenes(self.images[rows], self.classes[rows], self.masks[rows])

    def labels(self) -> torch.Tensor:
        """Return which classes an image shows, (n, classes)."""
        found = np.zeros((len(self.classes), CLASSES + 1), np.float32)
        np.put_along_axis(found, self.classes, 1, 1)
        return torch.from_numpy(found[:, :CLASSES])


def crops(folder: Path, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return squares cut from photographs, at least (count, side, side, 3) uint8, as many from each."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    found = []
    for file in files:
        picture = Image.open(file).convert("RGB")
        for _ in range(-(-count // len(files))):
            cut = int(rng.integers(min(picture.size) // 3, min(picture.size) + 1))
            x, y = (int(rng.integers(0, full - cut + 1)) for full in picture.size)
            found.append(np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, (x, y, x + cut, y + cut))))
    return np.stack(found)


def scenes(
    backgrounds: np.ndarray, count: int, rng: np.random.Generator, sizes: tuple[float, float], second: float
) -> Scenes:
    """Draw figures on backgrounds: half a figure's side as a share of the image's, and the share with two figures."""
    images = backgrounds[rng.integers(len(backgrounds), size=count)].copy()
    side = images.shape[1]
    classes = np.argsort(rng.random((count, CLASSES)), 1)[:, :2]
    halves = rng.uniform(*sizes, (count, 1, 2, 1))
    places = halves + rng.random((count, 30, 2, 2)) * (1 - 2 * halves)
    apart = np.abs(places[:, :, 0] - places[:, :, 1]).max(2) > halves.sum((1, 2, 3))[:, None]
    places = places[np.arange(count), apart.argmax(1)]
    classes[(rng.random(count) >= second) | ~apart.any(1), 1] = -1
    masks = np.zeros((count, 2, side, side), bool)
    for number, figure in np.argwhere(classes >= 0):
        hue, pattern = divmod(int(classes[number, figure]), PATTERNS)
        inside, marks = _figure(side, places[number, figure], halves[number, 0, figure, 0], pattern, rng)
        colours = 255 * (HUES[hue] + rng.uniform(-0.1, 0.1, (2, 3)))
        drawn = np.where(marks[..., None], *colours)
        images[number][inside] = drawn[inside].clip(0, 255)
        masks[number, figure] = inside
    return Scenes(images, classes, masks)


def _figure(side: int, place: np.ndarray, half: float, pattern: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return a figure's pixels, a disc, a triangle or a cross, and its marks, both (side, side) bool."""
    steps = (np.arange(side) + 0.5) / side
    y, x = np.meshgrid((steps - place[0]) / half, (steps - place[1]) / half, indexing="ij", sparse=True)
    outlines = (
        y * y + x * x < 0.9,
        (y < 0.9) & (y > 2 * np.abs(x) - 0.9),
        (np.minimum(np.abs(y), np.abs(x)) < 0.4) & (np.maximum(np.abs(y), np.abs(x)) < 0.95),
    )
    down, across = ((1.5 * axis + rng.random()) % 1 for axis in (y, x))
    marks = (down < 0.5, (down < 0.5) ^ (across < 0.5), (down - 0.5) ** 2 + (across - 0.5) ** 2 < 0.09)
    return outlines[rng.integers(len(outlines))], np.broadcast_to(marks[pattern], (side, side))
