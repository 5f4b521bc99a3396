"""Small pictures to read, in bytes."""

from __future__ import annotations

import io

from PIL import Image

RED = (200, 30, 40)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def half_red(mode="RGB", size=(6, 4)):
    """Left half red, right half white."""
    image = Image.new("RGB", size, "white")
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.quantize(4) if mode == "P" else image.convert(mode)


def png(size=(6, 4), color=RED):
    return encoded(Image.new("RGB", size, color))


PNG = png()
