"""Maps as training data for torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from sess_ray.runs import Run, open_run


class MapDataset(Dataset[tuple[Any, Any, int]]):
    """Images, their maps and their targets: a row of maps/ each.

    Parameters
    ----------
    run : Run or str
        Opened, or the output of an explain job.
    transform : callable, optional
        Takes the image, ``tv_tensors.Image`` (3, H, W) uint8, and its map, ``tv_tensors.Mask`` (1, H, W) float32 in
        0..1, and returns both. The transforms of ``torchvision.transforms.v2`` do: what they crop, flip and resize of
        an image they do to its map, and what they do to colours they leave it out of. They resize masks to the nearest
        pixel.

    Notes
    -----
    A row is read with its row group, some dozens or hundreds of maps, of which a few stay in memory: shuffling a large
    run over a network reads each many times. Sort by place within a buffer, or copy the run to a local disk first.
    """

    def __init__(self, run: Run | str, transform: Callable[[Any, Any], tuple[Any, Any]] | None = None) -> None:
        self.run = open_run(run) if isinstance(run, str) else run
        self.transform = transform

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, number: int) -> tuple[Any, Any, int]:
        """Return image, map and target of a row; `SessError` where the image cannot be read."""
        row = self.run[number]
        image: Any = tv_tensors.Image(torch.from_numpy(row.image().copy()).permute(2, 0, 1))
        saliency: Any = tv_tensors.Mask(torch.from_numpy(row.saliency)[None])
        if self.transform is not None:
            image, saliency = self.transform(image, saliency)
        return image, saliency, row.target
