"""A label that means several classes: its map as a group beside that of its one class of highest score.

    python -m studies.group_study DATA --models squeezenet1_1

DATA is as for `studies.adds`: the annotated pairs of image and category of coco-subset/, each explained both ways
within SESS by Grad-CAM. Labels of one class have the same map either way and count as such.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sess_ray import SESS, load_model
from sess_ray.boxes import boxes_region
from sess_ray.metrics import MaxBoxAccV2, PointingGame, PxAP
from sess_ray.tables import markdown
from studies.annotated import pictures, precision

ARMS = ("group", "one class")


def rows_of(data: Path, name: str, scales: int, limit: int | None) -> list[tuple[str, ...]]:
    """Explain every pair both ways; return a row a metric: what it says of both, and of the difference, in percent."""
    sess = SESS(load_model(name, str(data / "weights" / f"{name}.safetensors")), num_scales=scales)
    metrics: dict[str, list[Any]] = {kind.__name__: [kind(), kind()] for kind in (PxAP, PointingGame, MaxBoxAccV2)}
    for file, things in pictures(data, "coco")[:limit]:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        targets = [target for thing in things for target in (thing.target, thing.classes)]
        [found] = sess.explain([pixels], [targets])
        for place, thing in enumerate(things):
            segments = thing.segments(*pixels.shape[:2])
            region = boxes_region(thing.boxes, *pixels.shape[:2]) if segments is None else segments
            for arm, explanation in enumerate(found[2 * place : 2 * place + 2]):
                key = {"key": file.name, "label": thing.label}
                value = precision(metrics["PxAP"][arm], explanation.saliency, thing, region)
                if value is not None:
                    metrics["PxAP"][arm].add(value, **key)
                metrics["PointingGame"][arm].update(explanation.saliency, region, **key)
                metrics["MaxBoxAccV2"][arm].update(explanation.saliency, thing.boxes, **key)
    rows = []
    for kind, (group, one) in metrics.items():
        difference = group.difference(one)
        low, high = 100 * difference.low, 100 * difference.high
        means = [f"{100 * counted.summary().mean:.1f}" for counted in (group, one)]
        rows.append(
            (name, kind, str(difference.n), *means, f"{100 * difference.mean:+.2f} ({low:+.2f} to {high:+.2f})")
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["squeezenet1_1", "tf_efficientnet_lite0"])
    parser.add_argument("--scales", type=int, default=12)
    parser.add_argument("--limit", type=int, help="the first N images only")
    options = parser.parse_args()
    rows = [row for name in options.models for row in rows_of(options.data, name, options.scales, options.limit)]
    print(markdown([("model", "metric", "pairs", *ARMS, "group - one class"), *rows]))


if __name__ == "__main__":
    main()
