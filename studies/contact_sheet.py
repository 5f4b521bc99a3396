"""Draw one picture of base methods: a row a method; for each image what the method sees alone, and within SESS."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from PIL import Image, ImageDraw, ImageFont

from sess_ray import SESS, demo, load_model, methods
from sess_ray.cli import command
from sess_ray.io.decode import decode
from sess_ray.io.inputs import find_images
from sess_ray.io.reading import read_items
from sess_ray.models import Model
from sess_ray.pictures.overlay import blend
from sess_ray.pipeline.explain.config import DEMO_MODEL

app = command.command("contact_sheet.py", __doc__)


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """What to draw.

    Parameters
    ----------
    output
        Picture to write.
    input
        Images, as for sess-ray explain; without it, the sample images.
    model, weights
        As for sess-ray explain.
    methods
        Names separated by commas; all without it.
    method_option
        METHOD.key=value; may be given several times.
    images
        Number of images, from the first on.
    num_scales, pre_filter_ratio, fade
        SESS's; without a ratio, each method's own; few scales want windows that fade.
    tile
        Height of an image in the picture, in pixels.
    """

    output: str = "methods.jpg"
    input: str | None = None
    model: str = DEMO_MODEL
    weights: str | None = None
    methods: str | None = None
    method_option: tuple[str, ...] = ()
    images: int = 4
    num_scales: int = 5
    pre_filter_ratio: float | None = None
    fade: float = 0.25
    tile: int = 84


LABEL = 130  # pixels beside the images, for the method's name


def _photographs(config: SheetConfig) -> list[np.ndarray]:
    items = demo.images() if config.input is None else find_images(config.input)
    contents = read_items([item.uri for item in items])
    decoded = [
        decode(content)
        for content, _ in zip(contents, range(config.images), strict=False)
        if isinstance(content, bytes)
    ]
    # The sheet shows small pictures: large ones would only cost windows.
    return [_small(pixels, 400) for pixels in decoded]


def _small(pixels: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def _row(
    config: SheetConfig, model: Model, name: str, images: list[np.ndarray], classes: list[list[int]]
) -> Image.Image:
    """Explain the images with a method, alone and within SESS, and put the pictures side by side."""
    options = command.options_of(name, config.method_option, methods.names())
    pictures: list[Image.Image] = []
    for settings in ({"num_scales": None}, {"num_scales": config.num_scales}):
        sess = SESS(
            model,
            method=name,
            pre_filter_ratio=config.pre_filter_ratio,
            fade=config.fade,
            method_options=options,
            **settings,  # type: ignore[arg-type]
        )
        for pixels, [explanation] in zip(images, sess.explain(images, classes), strict=True):
            pictures.append(of_height(blend(pixels, explanation.saliency), config.tile))
    pairs = [pictures[i // 2 + (i % 2) * len(images)] for i in range(len(pictures))]
    return beside(name, pairs, config.tile)


def of_height(picture: Image.Image, height: int) -> Image.Image:
    return picture.resize((round(picture.width * height / picture.height), height))


def beside(label: str, pictures: list[Image.Image], height: int) -> Image.Image:
    row = Image.new("RGB", (LABEL + sum(picture.width + 4 for picture in pictures), height + 4), "white")
    ImageDraw.Draw(row).text((4, height // 2 - 6), label, "black", font=ImageFont.load_default(12))
    left = LABEL
    for picture in pictures:
        row.paste(picture, (left, 2))
        left += picture.width + 4
    return row


@app.default
def sheet(config: Annotated[SheetConfig, Parameter(name="*")] = SheetConfig()) -> int:
    """Draw the picture; return the exit code."""
    model = load_model(config.model, config.weights)
    images = _photographs(config)
    plain = SESS(model, num_scales=None)
    classes = [[explanation.predicted] for [explanation] in plain.explain(images)]
    photographs = [of_height(Image.fromarray(pixels), config.tile) for pixels in images]
    rows = [beside("", [picture for picture in photographs for _ in range(2)], config.tile)]
    for name in config.methods.split(",") if config.methods else methods.names():
        reason = methods.get(name).refusal(plain.model)
        if reason:
            print(f"{name}: {reason}", flush=True)
            continue
        begin = time.perf_counter()
        rows.append(_row(config, model, name, images, classes))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top_edge = 0
    for row in rows:
        picture.paste(row, (0, top_edge))
        top_edge += row.height
    picture.save(config.output, quality=88)
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
