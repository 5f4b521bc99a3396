"""Draw the picture at the top of the README: photographs, and beside each what the demo's model looks at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from PIL import Image, ImageDraw, ImageFont

from sess_ray import SESS, demo, load_model
from sess_ray.cli import command
from sess_ray.io.decode import decode
from sess_ray.io.reading import read_items
from sess_ray.pictures.overlay import blend
from sess_ray.pipeline.explain.config import DEMO_MODEL
from studies.contact_sheet import of_height

app = command.command("demo_sheet.py", __doc__)

GAP, LINE = 6, 24  # pixels between pictures, and for a caption


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """What to draw: sample images by the demo's model and SESS's defaults.

    Parameters
    ----------
    output
        Picture to write.
    images
        Names of sample images, separated by commas; each its likeliest class, or NAME=CLASS.
    num_scales
        SESS's.
    columns
        Images beside one another.
    tile
        Height of an image in the picture, in pixels.
    """

    output: str = "demo.jpg"
    images: str = "chelsea.png,coffee.png,motorcycle_left.png,astronaut.png=space shuttle"
    num_scales: int = 12
    columns: int = 2
    tile: int = 240


@app.default
def sheet(config: Annotated[SheetConfig, Parameter(name="*")] = SheetConfig()) -> int:
    """Draw the picture; return the exit code."""
    known = {item.image_id: item.uri for item in demo.images()}
    model = load_model(DEMO_MODEL)
    sess = SESS(model, num_scales=config.num_scales)
    cells = []
    names, _, targets = zip(*(one.partition("=") for one in config.images.split(",")), strict=True)
    for content, target in zip(read_items([known[name] for name in names]), targets, strict=True):
        assert isinstance(content, bytes), content
        pixels = decode(content)
        [[found]] = sess.explain([pixels], [[target]] if target else "top1")
        pair = [of_height(one, config.tile) for one in (Image.fromarray(pixels), blend(pixels, found.saliency))]
        caption = f"{model.class_name(found.target)}, {100 * found.score:.2g} %"
        print(f"{caption}, {found.num_kept} of {found.num_patches} windows", flush=True)
        cells.append(_cell(pair, caption))
    _grid(cells, config.columns).save(config.output, quality=88)
    return 0


def _cell(pair: list[Image.Image], caption: str) -> Image.Image:
    width, height = pair[0].size
    cell = Image.new("RGB", (2 * width + GAP, height + LINE), "white")
    for place, picture in enumerate(pair):
        cell.paste(picture, (place * (width + GAP), 0))
    ImageDraw.Draw(cell).text((2, height + 3), caption, "black", font=ImageFont.load_default(15))
    return cell


def _grid(cells: list[Image.Image], columns: int) -> Image.Image:
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    widths = [max(cell.width for cell in cells[place::columns]) for place in range(columns)]
    height = cells[0].height
    sheet = Image.new("RGB", (sum(widths) + 3 * GAP * (columns - 1), len(rows) * (height + GAP)), "white")
    for row, own in enumerate(rows):
        for place, cell in enumerate(own):
            sheet.paste(cell, (sum(widths[:place]) + 3 * GAP * place, row * (height + GAP)))
    return sheet


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
