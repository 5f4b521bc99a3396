"""Maps of six photographs under settings that together run every part of the engine, kept to compare later ones with.

``python -m tests.golden.maps NAME ...`` makes the maps of these settings again, and leaves the others what they are:
only where a map is meant to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KEPT = Path(__file__).with_name("maps.npz")
FEW = {"num_scales": 2, "pre_filter_ratio": 0.5}
# Settings of `sess_ray.SESS` by a name; maps are small, lest the repository grow.
SETTINGS: dict[str, dict[str, Any]] = {
    "gradcam": {"pre_filter_ratio": 0.9},
    "gradcam, all windows": {"pre_filter_ratio": 0.0},
    "gradcam, as released": {"pre_filter_ratio": 0.5, "fusion": "reference", "normalize": False, "smooth": False},
    "gradcam, step 112": {"num_scales": 2, "step_size": 112, "pre_filter_ratio": 0.5},
    "gradcam, guided": {"num_scales": 6, "windows": "guided", "whole_scales": 2, "pre_filter_ratio": 0.8},
    "gradcam, no SESS": {"num_scales": None},
    "gradcam++": FEW,
    "cam": FEW,
    "gradient": FEW,
    "guided_backprop, guided": {"num_scales": 6, "windows": "guided", "whole_scales": 2, "pre_filter_ratio": 0.9},
    "smoothgrad": {**FEW, "method_options": {"samples": 3}},
    "integrated_gradients": {**FEW, "method_options": {"steps": 3}},
    "excitation_backprop": FEW,
    "groupcam": {**FEW, "method_options": {"groups": 4}},
    "rise": {**FEW, "method_options": {"masks": 16}},
    "smooth_gradcam++": {**FEW, "method_options": {"samples": 2}},
    "cameras": {"num_scales": 1, "pre_filter_ratio": 0.5, "method_options": {"sizes": 2}},
    "augmented_gradcam": {"num_scales": 1, "pre_filter_ratio": 0.5, "method_options": {"samples": 3, "steps": 3}},
    "extremal_perturbation": {"num_scales": 1, "pre_filter_ratio": 0.9, "method_options": {"areas": "0.1", "steps": 3}},
}


def maps(model: Any, photographs: dict[str, np.ndarray], name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each map of a setting, uint8, by photograph and rank of its class."""
    import sess_ray

    shared = {"num_scales": 3, "max_map_side": 64, "device": "cpu", "fade": 0.0}
    settings = shared | {"method": name.partition(",")[0]} | SETTINGS[name]
    found = sess_ray.SESS(model, **settings).explain(list(photographs.values()), "top2")
    for photograph, explanations in zip(photographs, found, strict=True):
        for rank, explanation in enumerate(explanations):
            yield f"{name}/{photograph}/{rank}", np.rint(explanation.saliency * 255).astype(np.uint8)


if __name__ == "__main__":
    import sys

    import torch
    from PIL import Image

    from sess_ray import demo

    torch.set_num_threads(1)
    lite0 = demo.efficientnet_lite0()
    images = {item.image_id: np.asarray(Image.open(item.uri).convert("RGB")) for item in demo.images()}
    with np.load(KEPT) as kept:
        made = {key: kept[key] for key in kept}
    for name in sys.argv[1:]:
        made |= dict(maps(lite0, images, name))
    np.savez_compressed(KEPT, **made)
