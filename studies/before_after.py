"""Draw one picture of images, their maps by the former default ratio of 0.9, and their maps by today's defaults."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from PIL import Image

from sess_ray import SESS, demo, load_model
from sess_ray.cli import command
from sess_ray.io.decode import decode
from sess_ray.io.reading import read_items
from sess_ray.metrics.walls import walls
from sess_ray.pictures.overlay import blend
from sess_ray.pipeline.explain.config import DEMO_MODEL
from studies.contact_sheet import beside, of_height

app = command.command("before_after.py", __doc__)

BEFORE = {"pre_filter_ratio": 0.9, "fade": 0.0}


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """What to draw: the sample images by the demo's model, each map that of the likeliest class.

    Parameters
    ----------
    output
        Picture to write.
    methods
        Names separated by commas; two rows each.
    num_scales
        SESS's.
    fade
        SESS's in today's rows; without it, each method's own.
    tile
        Height of an image in the picture, in pixels.
    """

    output: str = "walls.jpg"
    methods: str = "gradcam"
    num_scales: int = 12
    fade: float | None = None
    tile: int = 150


@app.default
def sheet(config: Annotated[SheetConfig, Parameter(name="*")] = SheetConfig()) -> int:
    """Draw the picture and print the walls of each row; return the exit code."""
    model = load_model(DEMO_MODEL)
    contents = read_items([item.uri for item in demo.images()])
    images = [decode(content) for content in contents if isinstance(content, bytes)]
    rows = [beside("", [of_height(Image.fromarray(pixels), config.tile) for pixels in images], config.tile)]
    for method in config.methods.split(","):
        for name, settings in (("before", BEFORE), ("today", {"fade": config.fade})):
            sess = SESS(model, method=method, num_scales=config.num_scales, **settings)  # type: ignore[arg-type]
            maps = [explanation for [explanation] in sess.explain(images)]
            pictures = [blend(pixels, found.saliency) for pixels, found in zip(images, maps, strict=True)]
            shown = [of_height(picture, config.tile) for picture in pictures]
            rows.append(beside(f"{method}, {name}", shown, config.tile))
            each = [walls(found.saliency, found.plan, found.patches["kept"]) for found in maps]
            values = ", ".join(f"{one:.2f}" for one in each)
            print(f"{method}, {name}: walls {values}, mean {np.mean(each):.2f}", flush=True)
    picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        picture.paste(row, (0, number * row.height))
    picture.save(config.output, quality=85)
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
