"""Make pseudo-labels from a run, to train on: COCO's JSON, and label images and boxes in Pascal VOC's format."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.pipeline.labels.config import LabelsConfig

app = command.command("sess-ray labels", __doc__)


@app.default
def main(
    config: Annotated[LabelsConfig, Parameter(name="*")] = LabelsConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Export; return the exit code."""
    from sess_ray.pipeline.labels.job import run
    from sess_ray.pipeline.labels.prepare import prepare

    del config_file  # read by command.run, before the flags are
    labelling = prepare(config)
    recipe = labelling.recipe
    print(
        f"threshold: {recipe.threshold:g} of a map's maximum; refinement: {recipe.refinement or 'none'};"
        f" target's probability: {recipe.min_score:g} or more",
        flush=True,
    )
    with command.progress("map") as progress:
        counts = run(labelling, progress)
    print(
        f"{counts['objects']} objects in {counts['images']} images;"
        f" of {counts['maps']} maps {counts['empty']} show nothing, {counts['damaged']} are damaged,"
        f" {counts['unlikely']} are below --min-score {recipe.min_score:g}"
    )
    if counts["unrefined"]:
        print(f"{counts['unrefined']} masks are not refined: export.json says why their images could not be read")
    print(
        f"written: {public(labelling.store.url)}: annotations.json; Annotations/, SegmentationClass/, ...; labels.txt"
    )
    return 0 if counts["objects"] else command.FAILED
