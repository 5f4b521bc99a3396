"""A page of one image: every window with its score and its map, and the fused map as it grows window by window."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sess_ray.engine.explanation import Explanation
from sess_ray.engine.fusion import fuse
from sess_ray.engine.sess import SESS
from sess_ray.io.maps import encode_map
from sess_ray.io.store import Store
from sess_ray.pictures.plots import best_first, crop, rectangle, window_maps
from sess_ray.pipeline.gallery import pages

TILE = 112  # pixels of the longer side of a window's picture


def growing(count: int) -> list[int]:
    """Return how many windows are fused step by step: about a third more each time, and at last all.

    Examples
    --------
    >>> growing(20)
    [1, 2, 3, 4, 5, 7, 9, 12, 16, 20]
    """
    counts = [1]
    while counts[-1] < count:
        counts.append(min(count, max(counts[-1] + 1, round(counts[-1] * 4 / 3))))
    return counts


def fused_best(sess: SESS, explanation: Explanation, kept: int) -> np.ndarray:
    """Return the map that SESS makes of the best windows, as if all others had been dropped.

    Parameters
    ----------
    sess : SESS
        What explained it: its fusion counts.
    explanation : Explanation
        With the maps of all windows: ``pre_filter_ratio=0, keep_maps=True``.
    kept : int
        Number of windows.

    Returns
    -------
    ndarray, (H, W) float32 in 0..1
    """
    assert explanation.patch_maps is not None
    scores = torch.from_numpy(explanation.patches["score"].copy())
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[best_first(explanation)[:kept].copy()] = True
    maps = torch.from_numpy(explanation.patch_maps)[chosen]
    options = {"normalize": sess.normalize, "smooth": sess.smooth}
    return fuse(explanation.plan, maps, scores, chosen, fusion=sess.fusion, **options).numpy()


def write_page(
    store: Store, image_id: str, pixels: np.ndarray, sess: SESS, explanation: Explanation, ratio: float
) -> None:
    """Write the page of an image, its index.html last.

    Parameters
    ----------
    store : Store
    image_id : str
        What to call the image.
    pixels : ndarray, (H, W, 3) uint8
    sess : SESS
        What explained it.
    explanation : Explanation
        As for `fused_best`.
    ratio : float
        Share of the windows that is dropped where the slider stands at first.
    """
    table, plan = explanation.patches, explanation.plan
    height, width = (max(1, round(TILE * side / max(plan.sides))) for side in plan.sides)
    windows = []
    for rank, window in enumerate(best_first(explanation).tolist()):
        picture = crop(pixels, explanation, window, (height, width))
        levels = pages.small_map(window_maps(explanation, [window])[0], TILE)
        for name, content in (("jpg", pages.jpeg(picture)), ("png", encode_map(levels))):
            store.write(f"windows/{rank}.{name}", content)
        scale, y, x, score, *_ = table[window].tolist()
        box = [round(edge, 2) for edge in rectangle(explanation, window)]
        windows.append({"scale": scale, "y": y, "x": x, "score": score, "box": box})
        windows[-1] |= {"crop": f"windows/{rank}.jpg", "map": f"windows/{rank}.png"}
    steps, counts = [], growing(len(table))
    for kept in counts:
        name = f"fused/{kept}.png"
        store.write(name, encode_map(pages.small_map(fused_best(sess, explanation, kept), 2 * pages.SIDE)))
        steps.append({"kept": kept, "ratio": round(1 - kept / len(table), 3), "map": name})
    store.write("image.jpg", pages.jpeg(Image.fromarray(pixels), 2 * pages.SIDE))
    facts = {
        "id": image_id,
        "name": explanation.target_name,
        "score": explanation.score,
        "method": sess.method.name,
        "model": sess.model.name,
        "image": "image.jpg",
        "height": plan.height,
        "width": plan.width,
        "window": {"height": plan.sides[0], "width": plan.sides[1]},
        "windows": windows,
        "scales": [{"height": scale.height, "width": scale.width, "columns": len(scale.xs)} for scale in plan.scales],
        "steps": steps,
        "first": int(np.argmin([abs(1 - kept / len(table) - ratio) for kept in counts])),
    }
    store.write("data/windows.js", f"patches.start({pages.as_json(facts)});\n".encode())
    for name, content in pages.page("patches").items():
        store.write(name, content)
