"""Make web pages: the maps of runs side by side (--run), or every window of one image (--image).

They are static files that open from disk or from any web server.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sess_ray import SessError
from sess_ray.cli import command
from sess_ray.pipeline.gallery.config import GalleryConfig, PatchConfig

app = command.command("sess-ray gallery", __doc__)


@app.default
def main(
    config: Annotated[GalleryConfig, Parameter(name="*")] = GalleryConfig(),  # noqa: B008 - frozen
    patches: Annotated[PatchConfig, Parameter(name="*")] = PatchConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Make a gallery; return the exit code."""
    from sess_ray.pipeline.gallery.job import run
    from sess_ray.pipeline.gallery.one_image import write_patches
    from sess_ray.pipeline.gallery.prepare import prepare, unused

    del config_file  # read by command.run, before the flags are
    if patches.image is not None:
        if config.run:
            raise SessError("give either --run or --image")
        store = unused(config)
        count = write_patches(patches, store)
        print(f"{count} windows: open {store.path('index.html')}")
        return 0
    gallery = prepare(config)
    if left_out := gallery.left_out():
        print(left_out, flush=True)
    with command.progress("map", len(gallery.rows)) as progress:
        run(gallery, progress)
    print(f"{len(gallery.rows)} maps: open {gallery.store.path('index.html')}")
    return 0
