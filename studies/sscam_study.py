"""Which SS-CAM: where its noise goes, how wide it is, and what becomes of the noisy scores.

For each image and each noise the channels are scored once, and every way to weigh them makes its map of these scores.
Takes a folder with ``labels.json``, a list of {file, class_index, boxes}; explains whole images, without SESS.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from cyclopts import Parameter
from PIL import Image
from torch import Tensor

from sess_ray.cli import command
from sess_ray.methods import get
from sess_ray.methods.passes import Shared, up_sampled
from sess_ray.methods.perturbation import noisy_scores
from sess_ray.models import Model, load_model
from sess_ray.tables import markdown

app = command.command("sscam_study.py", __doc__)

Place = Literal["mask", "input"]
PLACES: tuple[Place, ...] = ("mask", "input")
# The baseline cancels in the softmax.
WAYS = ("mean", "max", "mean - baseline", "max - baseline", "softmax of max")


def average_precision(saliency: np.ndarray, inside: np.ndarray) -> float:
    """Return the average precision of the pixels of a region, ordered by a map; ties count as their mean rank."""
    values, groups = np.unique(-saliency.ravel(), return_inverse=True)
    hits = np.bincount(groups, inside.ravel(), len(values)).cumsum()
    seen = np.bincount(groups, minlength=len(values)).cumsum()
    return float((np.diff(hits, prepend=0) * hits / seen).sum() / hits[-1])


def weighed(scores: Tensor, baseline: Tensor, alive: Tensor, way: str) -> Tensor:
    """Return the weights of channels (K,) for noisy scores (samples, K)."""
    found = scores.mean(0) if "mean" in way else scores.amax(0)
    if "baseline" in way:
        found = torch.where(alive, found - baseline, 0)
    return found.masked_fill(~alive, -torch.inf).softmax(0) if "softmax" in way else found


def one(pixels: Image.Image, boxes: list[list[float]], model: Model) -> tuple[Tensor, np.ndarray]:
    """Return the image as a patch (1, 3, h, w), and the mask of its boxes (h, w)."""
    height, width = model.sides
    small = np.asarray(pixels.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    inside = np.zeros((height, width))
    across, down = width / pixels.width, height / pixels.height
    for x0, y0, x1, y1 in boxes:
        inside[round(y0 * down) : round(y1 * down), round(x0 * across) : round(x1 * across)] = 1
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.mean, model.std))
    return ((torch.from_numpy(small).permute(2, 0, 1) - mean) / std)[None], inside


def maps(model: Model, patch: Tensor, target: int, stds: list[float], samples: int) -> dict[str, np.ndarray]:
    """Return the map of every variant, (h, w)."""
    targets = torch.tensor([target])
    tap = model.tap(patch)
    activations = tap.activations
    shared, alive = Shared.of(targets, torch.tensor([0])), (activations.amax((2, 3)) > activations.amin((2, 3)))[0]
    with torch.no_grad():
        baseline = model.logits(torch.zeros_like(patch)).float().softmax(1)[0, target]
        found = {"gradcam": get("gradcam").function(activations, tap.gradients(targets))}
        for place, std in product(PLACES, stds):
            draws = [torch.Generator().manual_seed(0)]
            every = torch.cat(list(noisy_scores(model, patch, activations, shared, draws, 8, samples, std, place)))
            for way in WAYS:
                weights = weighed(every, baseline, alive, way)
                found[f"{place}, std={std:g}, {way}"] = torch.einsum("k,nkuv->nuv", weights, activations).relu()
    return {name: up_sampled(value, model.sides)[0].numpy() for name, value in found.items()}


@app.default
def main(
    folder: Path,
    *,
    weights: str,
    model: str = "squeezenet1_1",
    limit: Annotated[int, Parameter(help="Images.")] = 20,
    samples: int = 2,
    std: Annotated[tuple[float, ...], Parameter(help="Noises.")] = (0.1, 0.3, 1.0),
) -> int:
    """Compare; return the exit code."""
    torch.set_num_threads(1)
    prepared = load_model(model, weights).prepared(torch.device("cpu"), "fp32")
    rows: dict[str, list[tuple[float, float]]] = {}
    for label in json.loads((folder / "labels.json").read_text())[:limit]:
        patch, inside = one(Image.open(folder / label["file"]), label["boxes"], prepared)
        for name, found in maps(prepared, patch, label["class_index"], list(std), samples).items():
            shown = found - found.min()
            energy = float((shown * inside).sum() / shown.sum()) if shown.any() else 0.0
            rows.setdefault(name, []).append((100 * energy, 100 * average_precision(shown, inside)))
        print(".", end="", flush=True, file=sys.stderr)
    base = np.array(rows["mask, std=0.1, softmax of max"])
    table: list[tuple[str, ...]] = [("variant", "energy", "AP", "AP against softmax of max, std=0.1")]
    generator = np.random.default_rng(0)
    for name, values in rows.items():
        both = np.array(values)
        gain = (both - base)[:, 1]
        low, high = np.percentile(generator.choice(gain, (2000, len(gain))).mean(1), [2.5, 97.5])
        table.append(
            (name, *(f"{mean:.1f}" for mean in both.mean(0)), f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})")
        )
    print(f"\n{model}, {len(base)} images, {samples} samples\n")
    print(markdown(table))
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
