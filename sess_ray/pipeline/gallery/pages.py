"""The files of a gallery: thumbnails, rows as scripts, which a browser loads from a disk too, and the page itself."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from sess_ray.io.maps import quantize
from sess_ray.pictures.overlay import CORNERS

SIDE = 384  # of a thumbnail, in pixels
ROWS = 100  # of a file of data
LEVELS = 96  # pixels a side, of the values that the large view reads out
TITLES = {"gallery": "Saliency maps", "patches": "Windows of one image"}
# The scripts of a page, in the order in which they use one another, and the data that it begins with.
SCRIPTS = {
    "gallery": ("data", "filters", "histograms", "tags", "cards", "large", "tables", "gallery"),
    "patches": ("patches",),
}
DATA = {"gallery": "data/index.js", "patches": "data/windows.js"}


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def jpeg(picture: Image.Image, side: int = SIDE) -> bytes:
    """Return an image as a JPEG of at most `side` pixels a side."""
    buffer = io.BytesIO()
    small = picture.resize(_within(picture.size, side), Image.Resampling.LANCZOS)
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def small_map(saliency: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return a map (H, W) in 0..1 as it is shown, (h, w) uint8 of at most `side` pixels a side."""
    picture = Image.fromarray(quantize(saliency))
    return np.asarray(picture.resize(_within(picture.size, side), Image.Resampling.BOX))


def levels(name: str, maps: Sequence[np.ndarray | None]) -> bytes:
    """Return the file of the values of a row's maps, (h, w) uint8; None where there is no map."""
    told: list[dict[str, Any] | None] = []
    for found in maps:
        if found is None:
            told.append(None)
            continue
        picture = Image.fromarray(found)
        few = np.asarray(picture.resize(_within(picture.size, LEVELS), Image.Resampling.BOX))
        told.append({"height": few.shape[0], "width": few.shape[1], "levels": b64encode(few.tobytes()).decode()})
    return f"gallery.levels({as_json(name)}, {as_json(told)});\n".encode()


def disagreement(maps: Sequence[np.ndarray]) -> float | None:
    """Return how little maps of one image are alike: 1 - the smallest correlation of two of them, 0 to 2.

    Parameters
    ----------
    maps : sequence of ndarray, (h, w)
        A constant one is like no other: 1.

    Returns
    -------
    float or None
        None for fewer than two maps, or maps of different sizes.
    """
    if len(maps) < 2 or len({found.shape for found in maps}) > 1:
        return None
    flat = np.stack([found.ravel().astype(np.float64) for found in maps])
    flat -= flat.mean(1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    flat[norms > 0] /= norms[norms > 0, None]
    return float(1 - (flat @ flat.T)[np.triu_indices(len(maps), 1)].min())


def chunk(number: int, rows: Sequence[str]) -> bytes:
    """Return a file of rows, each of them JSON."""
    return f"gallery.chunk({number}, [\n{','.join(rows)}\n]);\n".encode()


def index(facts: dict[str, Any]) -> bytes:
    """Return the file of what filters and orders need of all rows."""
    text = json.dumps(as_json(facts))  # as a text, which browsers read in half the time of a literal
    return f"gallery.start(JSON.parse({text}));\n".encode()


def as_json(value: Any) -> str:
    """Return JSON that is a script's literal as well, in ASCII; a NaN is null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def page(name: str) -> dict[str, bytes]:
    """Return the files that are the same for each gallery, or each page of one image; index.html comes last.

    Parameters
    ----------
    name : {"gallery", "patches"}
    """
    source = files("sess_ray.pipeline.gallery") / "page"
    scripts = [f"page/{script}.js" for script in SCRIPTS[name]]
    text = (source / "frame.html").read_text().replace("@TITLE@", TITLES[name])
    text = text.replace("@BODY@", (source / f"{name}.html").read_text())
    text = text.replace("@SCRIPTS@", "".join(f'<script src="{place}"></script>\n' for place in (*scripts, DATA[name])))
    for channel, place in enumerate(("RED", "GREEN", "BLUE")):
        text = text.replace(f"@{place}@", " ".join(f"{value / 255:.3f}" for value in CORNERS[:, channel]))
    beside = {place: (source / place.removeprefix("page/")).read_bytes() for place in ("page/gallery.css", *scripts)}
    return {**beside, "index.html": text.encode()}
