"""All methods made quick: options of few passes, small images, and a net that each can explain."""

from __future__ import annotations

import numpy as np

from tests import nets

# Fewer passes than by default, where that is all an option does.
QUICK = {
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 3},
    "smooth_gradcam++": {"samples": 2},
    "cameras": {"sizes": 2},
    "sscam": {"samples": 2},
    "iscam": {"samples": 2},
    "rise": {"masks": 12},
    "xrai": {"steps": 3},
    "augmented_gradcam": {"samples": 3, "steps": 3},
    "extremal_perturbation": {"steps": 3, "areas": (0.1, 0.2)},
}


def crops(photographs, count=5):
    """Small crops of different sizes."""
    crops = []
    for number, pixels in enumerate(list(photographs.values())[:count]):
        height, width = 50 + 7 * number, 90 - 9 * number
        crops.append(np.ascontiguousarray(pixels[100 : 100 + height, 150 : 150 + width]))
    return crops


OTHERS = {"cam": "cells", "attention_rollout": "blocks.2.norm", "generic_attention": "blocks.2.norm"}


def other(name):
    """Return the model of a method that explains no `nets.Small`, and its layer."""
    return (nets.Pooled() if name == "cam" else nets.Transformer()), OTHERS[name]


def net_of(name):
    """Return a net that a method can explain, and its layer."""
    return other(name) if name in OTHERS else (nets.Small(scale=15), "third")
