"""Compare ways to fuse the same windows: an image is explained once, in this process, and each variant makes its map.

Takes the settings of sess-ray explain, annotations among them. A new variant is a function and a line in `VARIANTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter
from torch import Tensor

from sess_ray import SESS
from sess_ray.cli import command
from sess_ray.engine.explanation import Explanation
from sess_ray.engine.fusion import finish, min_max
from sess_ray.engine.scales import over, scale_matrices, summed
from sess_ray.errors import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.inputs import find_images
from sess_ray.metrics.localization import EnergyPointingGame, PointingGame
from sess_ray.metrics.metric import Metric, Summary
from sess_ray.metrics.perturbation import Deletion, Insertion, Overall, at_input_size, scored
from sess_ray.metrics.suite import SUITE, Facts
from sess_ray.metrics.thresholds import MaxBoxAcc
from sess_ray.models import load_model
from sess_ray.pipeline.evaluate.facts import Unmeasured, facts_of
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.targets import label_classes
from sess_ray.tables import markdown

app = command.command("fusion_study.py", __doc__)

SMALL = 0.25  # of the image
LOCALIZATION: dict[str, Callable[[], Any]] = {
    "pointing": PointingGame,
    "small": PointingGame,
    "energy": EnergyPointingGame,
    "box": MaxBoxAcc,
}
PERTURBATION: dict[str, Callable[[], Any]] = {"insertion": Insertion, "deletion": Deletion, "overall": Overall}


@dataclass(frozen=True)
class Windows:
    """What is to be fused.

    Attributes
    ----------
    scales : list of (Tensor, Tensor)
        For each scale, (H, W): the sum of its kept windows' maps times their scores, and the coverage of all of its
        windows.
    squared, unweighted : list of (Tensor, Tensor)
        The same with squared scores, and with 1 in place of scores.
    whole : Tensor, (H, W)
        The map of the whole image, without SESS, in 0..1.
    """

    scales: list[tuple[Tensor, Tensor]]
    squared: list[tuple[Tensor, Tensor]]
    unweighted: list[tuple[Tensor, Tensor]]
    whole: Tensor


Fuse = Callable[[Windows], Tensor]


def seamless(windows: Windows) -> Tensor:
    totals, coverages = zip(*windows.scales, strict=True)
    return over(torch.stack(totals).sum(0), torch.stack(coverages).sum(0))


def per_scale(windows: Windows) -> Tensor:
    """Each scale for itself, then their mean: fine scales, of many windows, count no more than coarse ones."""
    return torch.stack([over(*scale) for scale in windows.scales]).mean(0)


def squared_scores(windows: Windows) -> Tensor:
    return seamless(replace(windows, scales=windows.squared))


def without_scores(windows: Windows) -> Tensor:
    """Let all windows that the pre-filter keeps count alike."""
    return seamless(replace(windows, scales=windows.unweighted))


def times_whole(fuse: Fuse, power: float, windows: Windows) -> Tensor:
    return fuse(windows) * windows.whole**power


def sharpened(power: float, windows: Windows) -> Tensor:
    """Raise a map to a power, which keeps the order of its pixels: what this improves needs no knowledge."""
    return seamless(windows) ** power


VARIANTS: dict[str, Fuse] = {
    "seamless": seamless,
    "seamless ^ 1.5": partial(sharpened, 1.5),
    "seamless ^ 2": partial(sharpened, 2),
    "squared scores": squared_scores,
    "without scores": without_scores,
    "per scale": per_scale,
    "seamless x sqrt(whole)": partial(times_whole, seamless, 0.5),
    "per scale x sqrt(whole)": partial(times_whole, per_scale, 0.5),
    "per scale x whole": partial(times_whole, per_scale, 1),
    "without SESS": lambda windows: windows.whole,
}


def windows_of(explanation: Explanation, whole: Tensor) -> Windows:
    """Return what a map is fused of."""
    plan = explanation.plan
    assert explanation.patch_maps is not None
    kept = torch.from_numpy(explanation.patches["kept"].copy())
    scores = torch.from_numpy(explanation.patches["score"].copy())[kept]
    maps = min_max(torch.from_numpy(explanation.patch_maps), plan.window)
    matrices = scale_matrices(plan, *maps.shape[1:], maps.dtype, maps.device)
    marks = [kept[own] for own in plan.slices()]

    def scales(weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = (maps * weights.view(-1, 1, 1)).split([int(own.sum()) for own in marks])
        return [summed(part, own, *both) for part, own, both in zip(parts, marks, matrices, strict=True)]

    return Windows(scales(scores), scales(scores.square()), scales(torch.ones_like(scores)), whole)


class Board:
    """The metrics of each variant; those that ask the model only where they are wanted."""

    def __init__(self, *, perturbation: bool) -> None:
        self.names = LOCALIZATION | (PERTURBATION if perturbation else {})
        self.metrics = {variant: {name: make() for name, make in self.names.items()} for variant in VARIANTS}

    def add(
        self, windows: Windows, pixels: np.ndarray, row: dict[str, Any], facts: tuple[str, Facts], sess: SESS
    ) -> None:
        """Measure what all variants make of an image's windows."""
        label, known = facts
        for variant, fuse in VARIANTS.items():
            total = fuse(windows)
            saliency = finish(partial(_rows, total), torch.empty_like(total)).numpy()
            y, x = np.unravel_index(saliency.argmax(), saliency.shape)
            seen = replace(known, peak=(int(x), int(y)))
            metrics, given = self.metrics[variant], {"key": row["image_id"], "label": label}
            hit = _compared("pointing_game", metrics["pointing"], saliency, seen)
            metrics["pointing"].add(hit, **given)
            if known.region.mean() < SMALL:
                metrics["small"].add(hit, **given)
            metrics["energy"].add(_compared("energy_pointing_game", metrics["energy"], saliency, seen), **given)
            metrics["box"].add(_compared("max_box_acc", metrics["box"], saliency, seen), **given)
            if "overall" not in metrics:
                continue
            image, small = at_input_size(pixels, saliency, sess.model)
            asked = [metrics["insertion"], metrics["deletion"]]
            scores = scored(
                sess.model, [(metric.series(image, small), row["target"]) for metric in asked], sess.batch_size
            )
            areas = [metric.measure(found) for metric, found in zip(asked, scores, strict=True)]
            for metric, area in zip(asked, areas, strict=True):
                metric.add(area, **given)
            metrics["overall"].add(areas[0] - areas[1], **given)

    def table(self) -> str:
        """Return a row for each variant, and how much it differs from the first, with 95 % confidence."""
        base, *_ = VARIANTS
        rows: list[tuple[str, ...]] = [("variant", *self.names)]
        for variant, metrics in self.metrics.items():
            rows.append((variant, *(_percent(metric.summary()) for metric in metrics.values())))
        for variant, metrics in self.metrics.items():
            if variant != base:
                others = self.metrics[base]
                cells = (_percent(metric.difference(others[name]), "+") for name, metric in metrics.items())
                rows.append((f"{variant} - {base}", *cells))
        return markdown(rows)


def _rows(values: Tensor, top: int, bottom: int) -> Tensor:
    return values[top:bottom]


def _compared(name: str, metric: Metric, saliency: np.ndarray, facts: Facts) -> Any:
    compare = SUITE[name].compare
    assert compare is not None
    return compare(metric, saliency, facts)


def _percent(found: Summary, sign: str = "") -> str:
    return f"{100 * found.mean:{sign}.1f} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f})"


@app.default
def main(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(),  # noqa: B008 - frozen
    *,
    perturbation: Annotated[
        bool, Parameter(help="Insertion and deletion too: some 450 passes a variant and map.")
    ] = True,
) -> int:
    """Compare; return the exit code."""
    if config.annotations is None or config.input is None:
        raise SessError("a study needs --input and --annotations")
    if config.max_map_side is not None:
        raise SessError("a study compares maps with annotations at their images' size: leave out --max-map-side")
    model = load_model(config.model, config.weights, config.layer)
    annotations = read_annotations(config.annotations)
    classes = label_classes(annotations, config.class_map, model)
    options: dict[str, Any] = config.explainer_options()
    sess = SESS(model, **{**options, "windows": "all", "keep_maps": True})
    without = SESS(model, **{**options, "num_scales": None})
    board, maps = Board(perturbation=perturbation), 0
    for image_id, pixels in islice(command.decodable(find_images(config.input), config.max_pixels), config.limit):
        annotation = annotations.find(image_id)
        labels = dict.fromkeys(thing.label for thing in annotation.objects) if annotation else ()
        targets = [classes[label] for label in labels if classes[label]]
        if not targets:
            continue
        [explanations] = sess.explain([pixels], [targets])
        distinct = {explanation.target: explanation for explanation in explanations}
        [wholes] = without.explain([pixels], [list(distinct)])
        for explanation, whole in zip(distinct.values(), wholes, strict=True):
            height, width = explanation.saliency.shape
            x, y = explanation.peak
            row = {"image_id": image_id, "target": explanation.target, "height": height, "width": width}
            row |= {"peak_x": x, "peak_y": y}
            try:
                facts = facts_of(row, annotation, classes, "segments")
            except (Unmeasured, SessError) as error:
                print(f"left out: {image_id}, {explanation.target_name}: {error}", file=sys.stderr)
                continue
            board.add(windows_of(explanation, torch.from_numpy(whole.saliency)), pixels, row, facts, sess)
            maps += 1
        print(".", end="", flush=True)
    print(f"\n{config.method}, {model.name}, {maps} maps, r = {sess.pre_filter_ratio:g}\n")
    print(board.table())
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
