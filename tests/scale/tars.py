"""What a run over many tar shards costs before its first image: `python -m tests.scale.tars --shards 2000`.

Half of the shards are in the output already. The command is started as a person starts it, and stopped by Ctrl-C some
seconds after its first new rows; printed is what `tests.scale.spans` prints. Shards are links to one, and the files of
the finished half to another: no run opens these.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from sess_ray.io.cuts import numbers_of
from sess_ray.io.pieces import Whole, piece, piece_of
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests.scale.spans import SETTINGS, linked, measure, plan


def write_shards(folder: Path, shards: int, images: int) -> list[str]:
    """Write tar shards of small images; return their names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{number:06}.tar" for number in range(shards)]
    last = folder / names[0]
    with tarfile.open(last, "w") as shard:
        for number in range(images):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 200, (16, 16, 3), np.uint8)).save(content, "PNG")
            info = tarfile.TarInfo(f"{number:06}.png")
            info.size = len(content.getvalue())
            shard.addfile(info, io.BytesIO(content.getvalue()))
    for number, name in enumerate(names[1:], 1):
        last = linked(last, folder / name, number)
    return names


def write_output(store: Store, names: list[str], images: int, files_per_shard: int) -> None:
    """Leave every second shard as a finished run leaves it before it joins files."""
    store.replace_table("maps", "one", pa.Table.from_pylist([{"image_id": "one", "target": 1}], MAPS))
    one, written = Path(store.path("maps/one.parquet")), 0
    last = one
    for name in names[::2]:
        [span], rows = numbers_of([name]), numbers_of(f"{name}/{number:06}.png" for number in range(images))
        for first in range(files_per_shard):
            own, end = rows[first::files_per_shard], first + 1 == files_per_shard
            found = piece(span, own, len(own), len(own), whole=Whole().plus(rows) if end else None)
            written += 1
            last = linked(last, one.with_name(f"{found.stem}.parquet"), written)
    one.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000, help="of a shard")
    parser.add_argument("--files-per-shard", type=int, default=1)
    parser.add_argument("--plan", action="store_true", help="start no run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        folder, output = Path(held, "shards"), Path(held, "out")
        names = write_shards(folder, given.shards, given.images)
        job = prepare(ExplainConfig(input=str(folder), output=str(output), **SETTINGS))
        job.start()
        write_output(job.store, names, given.images, given.files_per_shard)
        print(f"{given.shards} shards of {given.images} images, half of them finished", flush=True)
        plan(folder, output, "shards")
        finished = set(numbers_of(names[::2]))
        if not given.plan:
            measure(folder, output, lambda name: (one := piece_of(name)) is not None and one.span not in finished)


if __name__ == "__main__":
    main()
