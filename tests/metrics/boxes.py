"""Boxes and maps that several tests measure."""

from __future__ import annotations

import numpy as np

from sess_ray.boxes import boxes_region

BOX = np.array([[30.0, 20.0, 70.0, 60.0]])  # 40 x 40 of 100 x 80: a fifth
REGION = boxes_region(BOX, 80, 100)


def point(x, y, height=80, width=100):
    saliency = np.zeros((height, width), np.float32)
    saliency[y, x] = 1
    return saliency
