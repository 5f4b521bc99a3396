"""Annotated images as studies take them: what each shows, its classes, boxes and outlines; nothing but the core."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from sess_ray.metrics import PxAP

SIDE = 224


@dataclass(frozen=True)
class Thing:
    """What an image shows of one label: its classes, boxes (n, 4), and outlines, those of crowds apart."""

    label: str
    classes: tuple[int, ...]
    boxes: np.ndarray
    outlines: list[Any] = field(default_factory=list)
    crowds: list[Any] = field(default_factory=list)

    @property
    def target(self) -> int | dict[str, tuple[int, ...]]:
        """What `SESS.explain` takes: a class, or the group of them."""
        return self.classes[0] if len(self.classes) == 1 else {self.label: self.classes}

    def segments(self, height: int, width: int) -> np.ndarray | None:
        """Return where it is, (height, width) bool; None where nobody has outlined it."""
        outlines = self.outlines + self.crowds
        return drawn(outlines, height, width) if outlines else None

    def ignored(self, height: int, width: int) -> np.ndarray | None:
        """Return the pixels that only its crowds cover, which PxAP leaves out; None where there are none."""
        if not self.crowds:
            return None
        return drawn(self.crowds, height, width) & ~drawn(self.outlines, height, width)


def drawn(outlines: list[Any], height: int, width: int) -> np.ndarray:
    """Return what COCO's polygons and run lengths cover, (height, width) bool."""
    picture = Image.new("1", (width, height))
    covered = np.zeros((height, width), bool)
    for outline in outlines:
        if isinstance(outline, dict):  # run lengths, down the columns
            values = np.arange(len(outline["counts"])) % 2 == 1
            covered |= np.repeat(values, outline["counts"]).reshape(width, height).T
            continue
        for polygon in outline:
            ImageDraw.Draw(picture).polygon(polygon, fill=1)
    return covered | np.asarray(picture)


def precision(metric: PxAP, saliency: np.ndarray, thing: Thing, region: np.ndarray) -> float | None:
    """Return the PxAP of a map, in which crowds do not count; None where there is nothing but crowds."""
    ignored = thing.ignored(*saliency.shape)
    if ignored is not None and not (region & ~ignored).any():
        return None
    return metric.measure(saliency, region, ignored)


def small(saliency: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a map and boxes in 224 x 224 pixels, as the authors of MaxBoxAccV2 evaluate them, and in less time."""
    values = F.interpolate(torch.from_numpy(saliency)[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)
    height, width = saliency.shape
    return values[0, 0].numpy(), boxes * np.array([SIDE / width, SIDE / height] * 2)


def pictures(root: Path, data: str) -> list[tuple[Path, list[Thing]]]:
    """Return the files of a set and what is to be seen in each."""
    if data != "coco":
        folder = root / {"boxes": "imagenet-val-boxes", "227": "imagenet-val-227"}[data]
        return [
            (folder / row["file"], [Thing(str(row["class_index"]), (row["class_index"],), np.array(row["boxes"]))])
            for row in json.loads((folder / "labels.json").read_text())
        ]
    folder = root / "coco-subset"
    coco = json.loads((folder / "annotations/instances_train2017.json").read_text())
    means = json.loads((folder / "coco_to_imagenet.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = []
    for image in coco["images"]:
        objects: dict[str, list[dict[str, Any]]] = {}
        for entry in coco["annotations"]:
            if entry["image_id"] == image["id"] and means.get(names[entry["category_id"]]):
                objects.setdefault(names[entry["category_id"]], []).append(entry)
        things = []
        for label, own in objects.items():
            boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in own)])
            outlines, crowds = (
                [entry["segmentation"] for entry in own if entry["iscrowd"] == crowd] for crowd in (0, 1)
            )
            things.append(Thing(label, tuple(means[label]), boxes, outlines, crowds))
        if things:
            found.append((folder / "train2017" / image["file_name"], things))
    return found
