"""A run with images of several kinds, and its export by the stages of the job in this process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from PIL import ExifTags, Image

from sess_ray.io.maps import encode_map
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.job import finish, pack
from sess_ray.pipeline.export.prepare import prepare

HEIGHT, WIDTH = 30, 40
HOSTILE = '<i>"a" & b.dot.jpg'
NAMES = {2: "cat", 7: 'dog, "big"', -5: "pets"}
# The targets of each image, the likeliest first.
TARGETS = {"a/plain.jpg": [2], "a/turned.jpg": [7, 2], "clear.png": [-5], HOSTILE: [2, 7, -5], "deep.png": [7]}
GONE, DAMAGED = "gone.jpg", "damaged.jpg"


def levels(name, target):
    seed = [len(name), abs(target)]
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def pixels(name):
    """Return smooth pixels, which JPEG hardly changes, (H, W, 3)."""
    across = np.linspace(0, 200, WIDTH)[None, :, None] + np.linspace(0, 40, HEIGHT)[:, None, None]
    return (across * np.array([1, 0.5, 1 - len(name) / 40])).astype(np.uint8)


def draw(root):
    (root / "images" / "a").mkdir(parents=True)
    for name in TARGETS:
        image, options = Image.fromarray(pixels(name)), {}
        if name == "a/turned.jpg":  # lies on its side, and says so
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = 6
            image, options = image.transpose(Image.Transpose.ROTATE_90), {"exif": exif}
        elif name == "clear.png":
            image.putalpha(255)
        elif name == "deep.png":
            image = Image.fromarray((pixels(name)[..., 0].astype(np.uint16)) * 257)
        image.save(root / "images" / name, quality=98, **options)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / DAMAGED)


def store_run(root):
    """Store a run of five images, of one that is gone and of a damaged map; return where it is."""
    draw(root)
    rows = []
    for name, targets in {**TARGETS, GONE: [2], DAMAGED: [2]}.items():
        for rank, target in enumerate(targets):
            png = b"no picture" if name == DAMAGED else encode_map(levels(name, target))
            rows.append(
                {"image_id": name, "uri": str(root / "images" / name), "target": target, "target_name": NAMES[target]}
                | {"target_classes": [2, 7] if target < 0 else [target], "score": 0.5**rank, "predicted": 2}
                | {"predicted_score": 1.0, "height": HEIGHT, "width": WIDTH, "peak_x": 3, "peak_y": 4}
                | {"num_patches": 9, "num_scored": 9, "num_kept": 5, "method": "gradcam", "model": "net"}
                | {"saliency": {"bytes": png, "path": None}}
            )
    store = Store(str(root / "run"))
    for part in (rows[:3], rows[3:4], rows[4:]):
        store.write_table("maps", pa.Table.from_pylist(part, MAPS))
    store.write_json("run.json", {"config": {"num_scales": 12, "targets": "top3", "seed": None}})
    return str(root / "run")


def export(run, output, to, **settings):
    """Export a run; return what `finish` returns."""
    checked = prepare(ExportConfig(to=to, run=run, output=str(output), **settings))
    given = (checked.config.access(), run, str(output), to, checked.recipe, checked.known, len(checked.blocks))
    rows = [row for block in checked.blocks[::-1] for row in pack(block, *given).to_pylist()]
    return finish(checked, rows)
