"""A span of forty images, written in blocks as a run writes them, and what readers find of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

import sess_ray
from sess_ray.io.held import held
from sess_ray.io.pieces import piece
from sess_ray.io.store import ERRORS, MAPS, Store

IDS = [f"{number * 37 % 100:02}" for number in range(40)]  # in the manifest's order, which is not that of the ids
FAILED = {IDS[5], IDS[31]}


def rows_of(name):
    """Return the maps of an image: of one to three targets, in no order, with bytes of their own."""
    rng = np.random.default_rng(int(name))
    targets = rng.permutation(9)[: 1 + int(name) % 3].tolist()
    saliency = [{"bytes": rng.bytes(20 + int(name)), "path": None} for _ in targets]
    common = {"image_id": name, "uri": f"/{name}.jpg", "method": "gradcam", "model": "tiny"}
    return [{**common, "target": t, "saliency": s} for t, s in zip(targets, saliency, strict=True)]


def keep(store, ids, failed=FAILED, generation=(0, 0)):
    """Write the files of a block of images, as the stage that writes does."""
    for folder, schema, some, own in (
        ("maps", MAPS, [name for name in ids if name not in failed], generation[0]),
        ("errors", ERRORS, [name for name in ids if name in failed], generation[1]),
    ):
        found = [row for name in some for row in (rows_of(name) if folder == "maps" else [{"image_id": name}])]
        maps = len(found) if folder == "maps" else 0
        stem = piece(0, sorted(IDS.index(name) for name in some), len(some), maps, own).stem
        store.replace_table(folder, stem, pa.Table.from_pylist(found, schema))


def filled(path, blocks):
    store = Store(str(path))
    for ids in blocks:
        keep(store, ids)
    return store


def blocks(seed, count):
    """Cut the images into blocks, whose actors give them back in any order."""
    rng = np.random.default_rng(seed)
    cuts = [
        IDS[start::count] if seed % 2 else IDS[start * 40 // count : (start + 1) * 40 // count]
        for start in range(count)
    ]
    return [rng.permutation(ids).tolist() for ids in cuts]


def files(store, spans):
    [(_, found)] = held(store, spans).scattered.items()
    return found


def contents(store):
    return {path.relative_to(store.url): path.read_bytes() for path in Path(store.url).glob("*/*.parquet")}


def seen(store):
    """Return what each reader gives, of every row."""
    maps = [(found.image_id, found.target, found.png) for found in sess_ray.open_run(store.url)]
    return maps + [(row["image_id"], -1, b"") for row in sess_ray.open_run(store.url).errors.to_pylist()]
