"""Do maps change when the model's weights, or the class explained, are others? Adebayo et al., NeurIPS 2018.

Takes the settings of sess-ray explain, and few images: each is explained again and again, in this process.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from sess_ray import SESS, demo
from sess_ray.cli import command
from sess_ray.io.access import use
from sess_ray.io.inputs import find_images
from sess_ray.metrics.metric import Metric
from sess_ray.metrics.sanity import KINDS, Similarity, parameter_randomisation, target_sensitivity
from sess_ray.models import Model, load_model
from sess_ray.pipeline.cluster.flags import MEASUREMENT, check
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.tables import markdown

app = command.command("sess-ray sanity", __doc__)


def _row(name: str, images: list[str], similarities: list[Similarity]) -> list[str]:
    cells = []
    for measure in ("ssim", "spearman"):
        metric = Metric()
        for image, found in zip(images, similarities, strict=True):
            metric.add(getattr(found, measure), key=image)
        summary = metric.summary()
        cells.append(f"{summary.mean:.2f} ({summary.low:.2f} to {summary.high:.2f})")
    return [name, *cells]


@app.default
def main(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(limit=8),  # noqa: B008 - frozen
    *,
    steps: Annotated[
        int, MEASUREMENT, Parameter(help="Layers whose weights are randomised, from the output to the input.")
    ] = 6,
    config_file: command.ConfigFile = None,
) -> int:
    """Check; return the exit code."""
    del config_file  # read by command.run, before the flags are
    check({"steps": steps})
    use(config.access())
    model = load_model(config.model, config.weights, config.layer)
    items = demo.images() if config.input is None else find_images(config.input)
    images = dict(islice(command.readable(items, config.max_pixels), config.limit))
    options: dict[str, Any] = config.explainer_options()
    top = SESS(model, num_scales=None).explain(list(images.values()), "top2")
    first, second = ([[found[rank].target] for found in top] for rank in (0, 1))

    def explained(model: Model, targets: list[list[int]]) -> list[np.ndarray]:
        return [found.saliency for [found] in SESS(model, **options).explain(list(images.values()), targets)]

    def of_first(model: Model) -> list[np.ndarray]:
        return explained(model, first)

    names = list(images)
    pairs = target_sensitivity(of_first(model), explained(model, second))
    rows = [_row("the second class instead of the first", names, pairs)]
    for kind in KINDS:
        for layer, found in parameter_randomisation(model, of_first, kind, steps, config.seed):
            rows.append(_row(f"cascading down to {layer}" if kind == "cascading" else f"only {layer}", names, found))
            print(".", end="", flush=True)
    print(f"\n{config.method}, {model.name}, {len(images)} images: similarity to the maps of the model as it is\n")
    print(markdown([("random weights, or another class", "SSIM", "Spearman"), *rows]))
    return 0
