"""Export a run with its images into another tool: Hugging Face's datasets, FiftyOne, or WebDataset."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.pipeline.export.config import ExportConfig

app = command.command("sess-ray export", __doc__)
TOLD = 3  # images that are left out, and why
OPENED = {
    "hf": 'datasets.load_dataset("{}", split="train")',
    "fiftyone": 'fiftyone.Dataset.from_dir(dataset_dir="{}", dataset_type=fiftyone.types.FiftyOneDataset)',
    "webdataset": 'webdataset.WebDataset("{}/shards/{}.tar")',
}


@app.default
def main(
    config: Annotated[ExportConfig, Parameter(name="*")] = ExportConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Export; return the exit code."""
    from sess_ray.pipeline.export.job import run
    from sess_ray.pipeline.export.prepare import prepare

    del config_file  # read by command.run, before the flags are
    export = prepare(config)
    facts = export.facts
    with command.progress("map", facts.maps) as progress:
        left_out = run(export, progress)
    written = facts.written
    print(f"{command.counted(written['maps'], 'map')} of {command.counted(written['images'], 'image')}")
    if left_out:
        print(f"left out: {command.counted(written['left_out'], 'image')}; export.json says why")
        for image_id, reason in list(left_out.items())[:TOLD]:
            print(f"  {image_id!r}: {reason}")
    if written["damaged"]:
        print(f"left out: {command.counted(written['damaged'], 'damaged map')}")
    place = public(export.store.url)
    last = f"{{00000..{facts.shards - 1:05}}}" if facts.shards > 1 else "00000"
    print(f"written: {place}", f"open:    {OPENED[config.to].format(place, last)}", sep="\n")
    return 0 if written["maps"] else command.FAILED
