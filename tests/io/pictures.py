"""Small pictures for tests of reading."""

from __future__ import annotations

import io

from PIL import Image


def png(size=(6, 4), color=(200, 30, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


PNG = png()
