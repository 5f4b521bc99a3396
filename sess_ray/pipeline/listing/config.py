"""The settings of a list: one definition for flags, file and help."""

# Annotations are no text here: those of `OpensUrls` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.flags import INPUT, OUTPUT
from sess_ray.pipeline.cluster.settings import OpensUrls


@dataclass(frozen=True, kw_only=True)
class ListConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.listing.job.run`.

    Parameters
    ----------
    input
        What to list: everything that sess-ray explain takes as --input except tar shards; also the manifest.json of an
        S3 Inventory or of an inventory report of Google's Storage Insights.
    image_column
        The table's column that holds the images or says where they are, if it is not found automatically.
    label_column
        The table's column that says what an image shows, if it is not called label, class or class_index.
    output
        The manifest to write, a path or a URL that ends in .parquet.
    overwrite
        Replace the manifest that is there, and start over if a list was stopped. By default a stopped list is resumed.
    """

    input: Annotated[str | None, INPUT] = None
    image_column: Annotated[str | None, INPUT] = None
    label_column: Annotated[str | None, INPUT] = None
    output: Annotated[str, OUTPUT] = "manifest.parquet"
    overwrite: Annotated[bool, OUTPUT] = False

    def __post_init__(self) -> None:
        self.check()
        if not self.output.lower().endswith(".parquet"):
            raise SessError(f"--output {public(self.output)}: give a name that ends in .parquet")
