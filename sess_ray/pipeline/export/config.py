"""The settings of an export into another tool: one definition for flags, file, help and export.json."""

# Annotations are no text here: those of `RunsOnRay` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.io.decode import MAX_PIXELS
from sess_ray.pipeline.cluster.flags import INPUT, OUTPUT
from sess_ray.pipeline.cluster.settings import RunsOnRay

Tool = Literal["hf", "fiftyone", "webdataset"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RunsOnRay):
    """Settings of `sess_ray.pipeline.export.job.run`.

    Parameters
    ----------
    to
        The format: hf is a folder for Hugging Face's datasets and hub (Parquet with images and maps, and a dataset
        card); fiftyone is a FiftyOneDataset with a heatmap for each target; webdataset is tar files.
    run
        The output of sess-ray explain.
    images
        Where the images are now, if they have moved; they are copied.
    max_pixels
        Leave out images of more pixels, if they have to be converted.
    shard_images
        Least number of images in one Parquet or tar file; the files of the run are not split.
    output
        Folder or URL for the dataset.
    overwrite
        Replace the dataset in the output.
    """

    to: Annotated[Tool, OUTPUT] = "hf"
    run: Annotated[str, INPUT] = "out"
    images: Annotated[str | None, INPUT] = None
    max_pixels: Annotated[int, INPUT] = MAX_PIXELS
    shard_images: Annotated[int, OUTPUT] = 1000
    output: Annotated[str, OUTPUT] = "out/dataset"
    overwrite: Annotated[bool, OUTPUT] = False

    def __post_init__(self) -> None:
        self.check()
