"""What other tools are given of an image: its bytes, its maps, and what is known of them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

from sess_ray.access import one_line
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.file_parts import Known, images_in
from sess_ray.io.maps import map_of
from sess_ray.io.reading import stream_items
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.rows import Row

KEPT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # kinds that every tool shows, and the ends of their names
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
QUALITY = 95  # of a JPEG that is made of another image
# Of a row of maps/: all but where the image was, and what is said of it once more by its copy.
FACTS = (
    *("image_id", "target", "target_name", "target_classes", "score", "predicted", "predicted_name", "predicted_score"),
    *("height", "width", "peak_x", "peak_y", "num_patches", "num_scored", "num_kept", "method", "model"),
)


@dataclass(frozen=True)
class Sample:
    """An image with its maps.

    Attributes
    ----------
    name : str
        The files' name: the image's path without extension, where that is harmless.
    content : bytes
        The image as it was explained: upright, of one of `KEPT`.
    kind : str
        The end of its name.
    maps : list of dict
        `FACTS`, and ``png``, of each target, the likeliest first.
    damaged : int
        Maps that cannot be read, and are left out.
    """

    name: str
    content: bytes
    kind: str
    maps: list[dict[str, Any]]
    damaged: int = 0

    @property
    def image_id(self) -> str:
        return str(self.maps[0]["image_id"])


@dataclass(frozen=True)
class Recipe:
    """How images become samples.

    Attributes
    ----------
    names : mapping
        The classes that images are predicted to be.
    max_pixels : int
        Size of an image that is converted.
    kinds : mapping
        Those of `KEPT` that stay as they are; others become the first of them, or PNG where nothing is to be lost.
    """

    names: Mapping[int, str]
    max_pixels: int
    kinds: Mapping[str, str]


@dataclass
class Facts:
    """What is known of an export as a whole.

    Attributes
    ----------
    method, model : str
    record : dict
        run.json of the run, or its started.json; empty without both.
    most_targets : int
        Maps of one image, at most.
    images, maps, shards : int
        How many the run has, and in how many files they are exported.
    written : Counter
        Images and maps that are written, damaged maps, and images that are left out; complete when all documents have
        come.
    """

    method: str
    model: str
    record: Mapping[str, Any]
    most_targets: int
    images: int
    maps: int
    shards: int
    written: Counter[str] = field(default_factory=Counter)


def samples(shard: Row, run: Store, recipe: Recipe, known: Known, problems: dict[str, str]) -> Iterator[Sample]:
    """Yield the samples of some files of maps, a row group's in memory at a time.

    Parameters
    ----------
    shard : dict
        A row of `prepare.SHARDS`.
    run : Store
    recipe : Recipe
    known : (Names, Moved or None)
        What images are called as files, and where they are now.
    problems : dict
        Takes in why images, by their ids, are left out.
    """
    for part in shard["parts"]:
        for images, uris in images_in(part, run, known):
            ids = list(images)
            for number, content in stream_items([uris[image_id] for image_id in ids]):
                image_id = ids[number]
                try:
                    if isinstance(content, Exception):
                        raise content
                    rows = images.pop(image_id)
                    yield _sample(known[0].of(image_id), content, rows, recipe)
                except Exception as error:
                    problems[image_id] = one_line(error)


def _sample(name: str, content: bytes, rows: list[Row], recipe: Recipe) -> Sample:
    whole = [row for row in rows if map_of(row) is not None]
    if not whole:
        raise SessError("its maps are damaged")
    size = rows[0]["width"], rows[0]["height"]
    content, kind = portable(content, size, recipe)
    maps = [_facts(row, recipe) for row in sorted(whole, key=lambda row: (-row["score"], row["target"]))]
    return Sample(name, content, kind, maps, len(rows) - len(whole))


def _facts(row: Row, recipe: Recipe) -> dict[str, Any]:
    known = {
        **row,
        "num_scored": row.get("num_scored", row["num_patches"]),  # versions that scored all windows do not say it
        "target_classes": row.get("target_classes") or [row["target"]],  # nor those that knew no groups
        "predicted_name": recipe.names.get(row["predicted"]),
    }
    return {name: known[name] for name in FACTS} | {"png": row["saliency"]["bytes"]}


def portable(content: bytes, size: tuple[int, int], recipe: Recipe) -> tuple[bytes, str]:
    """Return an image as it was explained, for readers that may know less, and the end of its name.

    What is upright and 8-bit RGB or grey, of a kind that stays, is returned as it is.

    Parameters
    ----------
    content : bytes
    size : (int, int)
        Width and height that it had.
    recipe : Recipe

    Raises
    ------
    SessError
        If it cannot be read, or has another size.
    """
    with Image.open(io.BytesIO(content)) as image:
        kind, found = image.format or "", image.size
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1)
        plain = (
            image.mode in ("RGB", "L") and not getattr(image, "is_animated", False) and "transparency" not in image.info
        )
    if kind in recipe.kinds and upright and plain:
        _same(found, size)
        return content, recipe.kinds[kind]
    pixels = decode(content, recipe.max_pixels)
    _same(pixels.shape[1::-1], size)
    made = "PNG" if kind in LOSSLESS and "PNG" in recipe.kinds else "JPEG"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, made, quality=QUALITY, subsampling=0)
    return buffer.getvalue(), KEPT[made]


def _same(found: tuple[int, ...], size: tuple[int, int]) -> None:
    if tuple(found) != size:
        raise SessError(f"the image has {found[0]} x {found[1]} pixels now, its map is of {size[0]} x {size[1]}")
