"""2,000 damaged images: each is explained or has its reason in errors/, and nothing crashes or hangs."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_session")

SEED, COUNT = 11, 2000
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")


def whole_images(photograph):
    """The same small picture in each format; JPEG and TIFF with EXIF, GIF with two frames."""
    picture = Image.fromarray(photograph).resize((48, 32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cup"
    extra = {
        "JPEG": {"exif": exif},
        "TIFF": {"exif": exif, "compression": "tiff_lzw"},
        "GIF": {"save_all": True, "append_images": [picture.rotate(90)]},
    }
    for kind in KINDS:
        content = io.BytesIO()
        picture.save(content, kind, **extra.get(kind, {}))
        yield kind, content.getvalue()


def flipped(rng, content, _):
    mutated = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def header_flipped(rng, content, _):
    mutated = bytearray(content)
    for _ in range(rng.choice((1, 3))):
        mutated[rng.randrange(min(64, len(mutated)))] = rng.randrange(256)
    return bytes(mutated)


def truncated(rng, content, _):
    return content[: rng.randrange(len(content))]


def spliced(rng, content, other):
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def test_each_is_in_maps_or_in_errors(photographs, tmp_path):
    rng = random.Random(SEED)
    originals = dict(whole_images(photographs["coffee.png"]))
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        kind, other = rng.choice(KINDS), rng.choice(KINDS)
        mutate = rng.choice((flipped, header_flipped, truncated, spliced))
        name = f"{number:04}-{mutate.__name__}.{kind.lower()}"
        (folder / name).write_bytes(mutate(rng, originals[kind], originals[other]))
    output = tmp_path / "out"
    settings = {"model": "tests.fragile:model", "num_scales": 0, "overlays": 0, "actors": "1"}
    config = ExplainConfig(input=str(folder), output=str(output), **settings)
    summary = run(prepare(config))

    def ids(name):
        return [
            found
            for path in Path(output, name).glob("*.parquet")
            for found in pq.read_table(path)["image_id"].to_pylist()
        ]

    maps, errors = ids("maps"), ids("errors")
    assert sorted([*maps, *errors]) == sorted(path.name for path in folder.iterdir())
    assert (summary.total.images, summary.total.errors) == (len(maps), len(errors))
    assert 500 < len(maps) < 1500
    found = [row for path in (output / "errors").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["stage"] for row in found} <= {"decode", "plan", "explain"}
    # The test's model dislikes dark images.
    assert {row["error"] for row in found if row["stage"] == "explain"} <= {"RuntimeError: this image is too much"}
