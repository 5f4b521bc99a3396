"""Check that maps change with the model's weights, and with the class that is explained (Adebayo et al., NeurIPS 2018).

Takes the settings of sess-ray explain that make a map, and explains the two most likely classes of few images, each
many times, in this process alone: --targets and the flags of a job (--actors, --wait, --dry-run, ...) are refused.
Without --limit it takes 8 images, and without --output it writes to out/sanity.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from math import isnan
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from sess_ray import SESS, demo
from sess_ray.access import public, public_command, use
from sess_ray.cli import command
from sess_ray.io.inputs import find_images
from sess_ray.io.store import Store
from sess_ray.metrics.metric import Metric, Summary
from sess_ray.metrics.sanity import KINDS, Similarity, Window, parameter_randomisation, target_sensitivity
from sess_ray.models import Model, load_model
from sess_ray.pipeline.cluster.flags import MEASUREMENT, check
from sess_ray.pipeline.cluster.output import refuse_used
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.tables import markdown

app = command.command("sess-ray sanity", __doc__)


# Settings of sess-ray explain without a meaning here.
UNUSED = (
    *("targets", "annotations", "class_map", "several_classes", "label_column"),
    *("actors", "gpus_per_actor", "address", "wait", "dry_run", "overlays"),
    *("resume_anyway", "retry_errors", "max_errors"),
)
RESULTS = ("sanity.json", "sanity.md")
LOST = 0.3  # a rank correlation below which a map is called another one
ANOTHER_CLASS = "the second class instead of the first"


def _means(images: list[str], similarities: list[Similarity]) -> dict[str, Summary]:
    found = {}
    for measure in ("ssim", "spearman"):
        metric = Metric()
        for image, own in zip(images, similarities, strict=True):
            metric.add(getattr(own, measure), key=image)
        found[measure] = metric.summary()
    return found


def reading(found: Mapping[str, Mapping[str, Summary]]) -> list[str]:
    """Say in sentences what similarities mean.

    Parameters
    ----------
    found : mapping
        From what was changed to the means of ``ssim`` and ``spearman``: first another class, and the last of those
        that begin with "cascading" has lost all that it had learnt.
    """
    whole = [name for name in found if name.startswith("cascading")][-1]
    told = [
        "1 means the same map as that of the model as it is, 0 a map that has nothing in common with it.",
        (
            "A map that shows what the model has learnt is another one when the weights are random, the more layers "
            "the more; a map that stays shows the image, as an edge detector does."
        ),
    ]
    for name, lost, kept in (
        (whole, "the maps depend on what the model has learnt", "the maps show the image more than the model"),
        (ANOTHER_CLASS, "the maps are of the class", "the maps of two classes are much alike"),
    ):
        summary = found[name]["spearman"]
        numbers = f"Spearman {_cell(summary)}"
        if isnan(summary.low):
            told.append(f"{name}: {numbers}: one image has no interval; more images would decide.")
        elif summary.high < LOST:
            told.append(f"{name}: {numbers}: {lost}.")
        elif summary.low >= LOST:
            told.append(f"{name}: {numbers}: {kept}.")
        else:
            told.append(f"{name}: {numbers}: {LOST} is inside of the interval; more images would decide.")
    return told


@app.default
def main(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(limit=8, output="out/sanity"),  # noqa: B008 - frozen
    *,
    steps: Annotated[
        int, MEASUREMENT, Parameter(help="Number of layers whose weights are randomised, from the output to the input.")
    ] = 6,
    ssim: Annotated[
        Window, MEASUREMENT, Parameter(help="The window of SSIM: uniform, or gaussian as in the authors' notebooks.")
    ] = "uniform",
    config_file: command.ConfigFile = None,
) -> int:
    """Check; return the exit code."""
    del config_file  # read by command.run, before the flags are
    check({"steps": steps})
    command.refuse_unused(config, UNUSED, "sess-ray sanity")
    use(config.access())
    store = Store(config.output)
    refuse_used(store, RESULTS, "sanity checks", overwrite=config.overwrite)
    store.check_writable()
    model = load_model(config.model, config.weights, config.layer, **config.reading())
    if config.input is None:
        items = demo.images()
    else:
        items = find_images(config.input, output=config.output, image_column=config.image_column)
    images = dict(islice(command.decodable(items, config.max_pixels), config.limit))
    options: dict[str, Any] = config.explainer_options()
    top = SESS(model, num_scales=None).explain(list(images.values()), "top2")
    first, second = ([[found[rank].target] for found in top] for rank in (0, 1))

    def explained(model: Model, targets: list[list[int]]) -> list[np.ndarray]:
        return [found.saliency for [found] in SESS(model, **options).explain(list(images.values()), targets)]

    def of_first(model: Model) -> list[np.ndarray]:
        return explained(model, first)

    names = list(images)
    found = {ANOTHER_CLASS: _means(names, target_sensitivity(of_first(model), explained(model, second), ssim))}
    for kind in KINDS:
        for layer, alike in parameter_randomisation(model, of_first, kind, steps, config.seed, ssim):
            found[f"cascading down to {layer}" if kind == "cascading" else f"only {layer}"] = _means(names, alike)
            print(".", end="", flush=True)
    title = f"{config.method}, {model.name}, {len(images)} images: similarity to the maps of the model as it is"
    cells = [[name, *map(_cell, own.values())] for name, own in found.items()]
    table = markdown([("random weights, or another class", "SSIM", "Spearman"), *cells])
    text = "\n".join([f"# {title}\n", *reading(found), "", table]) + "\n"
    store.write("sanity.md", text.encode())
    means = {name: {measure: _recorded(own) for measure, own in both.items()} for name, both in found.items()}
    record = {"config": config.public(), "steps": steps, "ssim": ssim, "images": names, "similarity": means}
    store.write_json("sanity.json", record | {"command": public_command(sys.argv)})
    print(f"\n\n{text}\nwritten: {public(store.url)}: {', '.join(RESULTS)}")
    return 0


def _cell(summary: Summary) -> str:
    interval = "" if isnan(summary.low) else f" ({summary.low:.2f} to {summary.high:.2f})"
    return f"{summary.mean:.2f}{interval}"


def _recorded(summary: Summary) -> dict[str, float | None]:
    """Return a summary as JSON takes it."""
    return {name: None if isnan(value) else value for name, value in asdict(summary).items()}
