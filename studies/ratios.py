"""Which windows a map should be made of: the tables of docs/research.md, "Which windows", by the core alone.

    python -m studies.ratios DATA --model squeezenet1_1 --method groupcam --set boxes --limit 20

DATA is that of `studies.adds`. Every window of an image is explained once, and each way to fuse them makes its map of
these, so that the maps differ in nothing else. A new way is a function and a line in `WAYS`. `--ways "r = 0"` measures
that one alone beside r = 0.9, or beside `--base`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sess_ray import SESS, load_model
from sess_ray.boxes import boxes_region
from sess_ray.engine.explanation import Explanation
from sess_ray.engine.fusion import finish, keep, min_max
from sess_ray.engine.scales import scale_by_scale
from sess_ray.metrics import EnergyPointingGame, MaxBoxAccV2, Metric, PointingGame, PxAP, walls
from sess_ray.tables import markdown
from sess_ray.windows import Plan
from studies.annotated import Thing, pictures, precision, small

FADE = 0.25


@dataclass(frozen=True)
class Windows:
    """All windows of an image.

    Attributes
    ----------
    plan : Plan
    scores : Tensor, (P,)
    maps : Tensor, (P, u, v)
        The method's, each from 0 to 1.
    free : Tensor, (P, s, t)
        Grad-CAM's from the scoring pass, each from 0 to 1.
    """

    plan: Plan
    scores: Tensor
    maps: Tensor
    free: Tensor


@dataclass(frozen=True)
class Fused:
    """A map, the plan and the windows, (P,) bool, that it is made of."""

    saliency: np.ndarray
    plan: Plan
    kept: np.ndarray


def fused(windows: Windows, kept: Tensor, weights: Tensor, filling: Tensor | None = None, fade: float = 0.0) -> Fused:
    """Fuse the windows' maps with weights (P,), and Grad-CAM's with others where there are any."""
    plan = replace(windows.plan, fade=fade)
    parts = [(windows.maps, weights), *([] if filling is None else [(windows.free, filling)])]
    used = [(maps, weights, weights.nonzero()[:, 0]) for maps, weights in parts]
    sums = [scale_by_scale(plan, maps[at] * weights[at, None, None], at) for maps, weights, at in used]
    result = finish(lambda top, bottom: torch.stack([rows(top, bottom) for rows in sums]).sum(0),
                    windows.maps.new_empty(plan.height, plan.width))  # fmt: skip
    return Fused(result.numpy(), plan, kept.numpy())


# ---- ways to fuse ---------------------------------------------------------------------------------------------------


def plain(windows: Windows, ratio: float, fade: float = 0.0) -> Fused:
    """Fuse the windows that the pre-filter keeps by their scores, as `SESS` does."""
    kept = keep(windows.scores, ratio)
    return fused(windows, kept, windows.scores * kept, fade=fade)


def _cut(scores: Tensor, kept: Tensor) -> Tensor:
    """Return the score of the best dropped window, 0 where none is dropped."""
    return scores.masked_fill(kept, 0).amax()


def _above(scores: Tensor, kept: Tensor) -> Tensor:
    """Return weights that begin with 0 at the cut; where all kept windows are at the cut, their scores."""
    weights = (scores - _cut(scores, kept)).clamp(min=0) * kept
    return weights if bool(weights.any()) else scores * kept


def from_the_cut(windows: Windows, ratio: float) -> Fused:
    """Fuse kept windows by their scores minus that of the best dropped one."""
    kept = keep(windows.scores, ratio)
    return fused(windows, kept, _above(windows.scores, kept))


def filled(windows: Windows, ratio: float, soft: bool = False) -> Fused:
    """Fuse Grad-CAM's maps, as bright as the method's, with them where windows are dropped; `soft`, from the cut on."""
    scores, kept = windows.scores, keep(windows.scores, ratio)
    own, free = ((scores * maps.mean((1, 2)))[kept].sum() for maps in (windows.maps, windows.free))
    match = own / free if float(free) else torch.ones(())
    if soft:
        return fused(windows, kept, _above(scores, kept), match * scores.minimum(_cut(scores, kept)))
    return fused(windows, kept, scores * kept, match * scores * ~kept)


WAYS: dict[str, Callable[[Windows], Fused]] = {
    **{f"r = {ratio:g}": partial(plain, ratio=ratio) for ratio in (0.9, 0.8, 0.7, 0.5, 0.0)},
    **{f"r = {ratio:g}, fading": partial(plain, ratio=ratio, fade=FADE) for ratio in (0.9, 0.8)},
    **{
        f"r = {ratio:g}, fading {fade:g}": partial(plain, ratio=ratio, fade=fade)
        for ratio in (0.5, 0.0)
        for fade in (0.05, 0.1, 0.15, 0.25)
    },
    **{f"r = {ratio:g}, from the cut on": partial(from_the_cut, ratio=ratio) for ratio in (0.9, 0.8)},
    **{f"r = {ratio:g}, filled": partial(filled, ratio=ratio) for ratio in (0.9, 0.8)},
    **{f"r = {ratio:g}, both": partial(filled, ratio=ratio, soft=True) for ratio in (0.9, 0.8)},
}
HALF = "r = 0.9, half the step"


# ---- measuring ------------------------------------------------------------------------------------------------------


class Walls(Metric):
    """The mean of `sess_ray.metrics.walls` over maps."""


class Board:
    """The metrics of ways, by name; the first one is what the others are compared with."""

    def __init__(self, names: list[str]) -> None:
        self.walls = {name: Walls() for name in names}
        self.pxap = {name: PxAP() for name in names}
        self.hits = {name: PointingGame() for name in names}
        self.boxes = {name: MaxBoxAccV2() for name in names}
        self.energy = {name: EnergyPointingGame() for name in names}

    def add(self, name: str, found: Fused, thing: Thing, image: str) -> None:
        """Measure a map."""
        height, width = found.saliency.shape
        segments = thing.segments(height, width)
        region = boxes_region(thing.boxes, height, width) if segments is None else segments
        if not region.any():
            return
        jump = walls(found.saliency, found.plan, found.kept)
        if np.isfinite(jump):
            self.walls[name].add(jump, key=image)
        value = precision(self.pxap[name], found.saliency, thing, region)
        if value is not None:
            self.pxap[name].add(value, key=image, label=thing.label)
        for metric in (self.hits[name], self.energy[name]):
            metric.add(metric.measure(found.saliency, region), key=image, label=thing.label)
        self.boxes[name].add(self.boxes[name].measure(*small(found.saliency, thing.boxes)), key=image)

    def table(self) -> str:
        """Return a row for each way: its walls, and in points how much it differs from the first one."""
        points: dict[str, Mapping[str, Metric]] = {
            "PxAP": self.pxap,
            "pointing game": self.hits,
            "MaxBoxAccV2": self.boxes,
            "energy": self.energy,
        }
        rows, base = [("", "maps", "walls", *points)], next(iter(self.walls))
        for name, own in self.walls.items():
            differences = [metrics[name].difference(metrics[base]) for metrics in points.values()]
            cells = [f"{100 * one.mean:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})" for one in differences]
            rows.append((name, str(self.hits[name].n), f"{own.summary().mean:.2f}", *cells))
        return markdown(rows)


def windows_of(found: Explanation, free: Explanation) -> Windows:
    """Return the windows of an explanation that has kept all of its maps, and of Grad-CAM's."""
    assert found.patch_maps is not None
    assert free.patch_maps is not None
    maps, other = (min_max(torch.from_numpy(one), found.plan.window) for one in (found.patch_maps, free.patch_maps))
    return Windows(found.plan, torch.from_numpy(found.patches["score"].copy()), maps, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--set", default="boxes", choices=["boxes", "coco", "227"])
    parser.add_argument("--scales", type=int, default=12)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--batch", type=int, help="windows in one forward pass")
    parser.add_argument("--limit", type=int, help="images, in an order drawn with seed 0")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then what is known is printed")
    parser.add_argument("--ways", nargs="+", default=[*WAYS, HALF], choices=[*WAYS, HALF], help="all")
    parser.add_argument("--base", default="r = 0.9", choices=WAYS, help="what they are compared with")
    config = parser.parse_args()
    names = list(dict.fromkeys((config.base, *config.ways)))
    model = load_model(config.model, str(config.data / "weights" / f"{config.model}.safetensors"))
    sess = partial(SESS, model, num_scales=config.scales, precision=config.precision, batch_size=config.batch, fade=0.0)
    whole = sess(method=config.method, pre_filter_ratio=0.0, keep_maps=True)
    fills = any(isinstance(way, partial) and way.func is filled for way in map(WAYS.get, names))
    free = (
        whole
        if config.method == "gradcam" or not fills
        else sess(method="gradcam", pre_filter_ratio=0.0, keep_maps=True)
    )
    half = sess(method=config.method, pre_filter_ratio=0.9, step_size=min(model.sides) // 2)
    every, board, end = pictures(config.data, config.set), Board(names), time.monotonic() + config.seconds
    for number in np.random.default_rng(0).permutation(len(every))[: config.limit]:
        if time.monotonic() > end:
            break
        file, things = every[number]
        pixels, targets = np.array(Image.open(file).convert("RGB")), [[thing.target for thing in things]]
        [own] = whole.explain([pixels], targets)
        cheap = own if free is whole else free.explain([pixels], targets)[0]
        for thing, windows in zip(things, map(windows_of, own, cheap), strict=True):
            for name in names:
                if name in WAYS:
                    board.add(name, WAYS[name](windows), thing, file.name)
        if HALF in names:
            for thing, finer in zip(things, half.explain([pixels], targets)[0], strict=True):
                board.add(HALF, Fused(finer.saliency, finer.plan, finer.patches["kept"]), thing, file.name)
        print(".", end="", flush=True)
    print(f"\n\n{config.method}, {config.model}, {config.set}, {config.scales} scales, minus {config.base}:\n")
    print(board.table())


if __name__ == "__main__":
    main()
