"""Maps as training data for torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from sess_ray.runs import Run, open_run


class MapDataset(Dataset[tuple[Any, Any, int]]):
    """A torch dataset of images, their maps and their targets, one item for each row of maps/.

    Parameters
    ----------
    run : Run or str
        An open run, or the path or URL of an explain job's output.
    transform : callable, optional
        Takes the image, ``tv_tensors.Image`` (3, H, W) uint8, and its map, ``tv_tensors.Mask`` (1, H, W) float32 in
        0..1, and returns both. The transforms of ``torchvision.transforms.v2`` fit: they crop, flip and resize the map
        as they do the image, and leave it alone when they change colours. They resize masks with the nearest pixel.

    Notes
    -----
    A row is read together with its row group, some dozens or hundreds of maps, of which a few stay in memory. So
    shuffling a large run over a network reads each row group many times: shuffle within a buffer, or copy the run to a
    local disk first.
    """

    def __init__(self, run: Run | str, transform: Callable[[Any, Any], tuple[Any, Any]] | None = None) -> None:
        self.run = open_run(run) if isinstance(run, str) else run
        self.transform = transform

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, number: int) -> tuple[Any, Any, int]:
        """Return image, map and target of a row; `SessError` if the image cannot be read."""
        row = self.run[number]
        image: Any = tv_tensors.Image(torch.from_numpy(row.image().copy()).permute(2, 0, 1))
        saliency: Any = tv_tensors.Mask(torch.from_numpy(row.saliency)[None])
        if self.transform is not None:
            image, saliency = self.transform(image, saliency)
        return image, saliency, row.target
