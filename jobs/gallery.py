"""Make pages to look at: the maps of runs side by side (--run), or every window of one image (--image).

Static files that open from a disk or any web server.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from sess_ray import SessError, command
from sess_ray.pipeline.gallery_config import GalleryConfig, PatchConfig

app = command.command("gallery.py", __doc__)


@app.default
def main(
    config: Annotated[GalleryConfig, Parameter(name="*")] = GalleryConfig(),  # noqa: B008 - frozen
    patches: Annotated[PatchConfig, Parameter(name="*")] = PatchConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Make a gallery; return the exit code."""
    from sess_ray.pipeline.gallery import prepare, run, unused
    from sess_ray.pipeline.patches import write_patches

    del config_file  # read by command.run, before the flags are
    if patches.image is not None:
        if config.run:
            raise SessError("give either --run or --image")
        store = unused(config)
        count = write_patches(patches, store)
        print(f"{count} windows: open {store.path('index.html')}")
        return 0
    gallery = prepare(config)
    with command.progress("map", len(gallery.rows)) as progress:
        run(gallery, progress)
    print(f"{len(gallery.rows)} maps: open {gallery.store.path('index.html')}")
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
