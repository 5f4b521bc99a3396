"""The stages on CPU tasks, and what moves between stages. Nothing here needs torch: these workers start fast."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.inputs import read_items
from sess_ray.io.store import ERRORS, MAPS, Store, encode_map

TASKS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("row", pa.int64()),
        ("top", pa.string()),
        ("targets", pa.list_(pa.list_(pa.int32()))),  # of each, the alternatives
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)
DECODED = pa.schema(
    [
        *(TASKS.field(name) for name in ("image_id", "uri", "top", "targets", "stage", "error")),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixels", pa.large_binary()),
    ]
)
EXPLAINED = pa.schema(
    [
        *(field for field in MAPS if field.name not in ("saliency", "method", "model")),
        ("levels", pa.large_binary()),
        ("seconds", pa.float64()),  # of the actor; of images that share batches only the sum has a meaning
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)


def describe(error: BaseException) -> str:
    """Return type and message of an error in one line."""
    message = " ".join(str(error).split())
    return message if isinstance(error, SessError) else f"{type(error).__name__}: {message}"


def read_and_decode(table: pa.Table, max_pixels: int) -> Iterator[pa.Table]:
    """Read the images of a block and yield each with its pixels, or with the reason why there are none."""
    rows = table.to_pylist()
    wanted = [row for row in rows if row["error"] is None]
    contents = iter(read_items([row["uri"] for row in wanted], [row["row"] for row in wanted]))
    for row in rows:
        result = {**row, "height": 0, "width": 0, "pixels": None}
        if row["error"] is None:
            content = next(contents)
            try:
                if isinstance(content, Exception):
                    result |= {"stage": "read", "error": describe(content)}
                else:
                    pixels = decode(content, max_pixels)
                    result |= {"height": pixels.shape[0], "width": pixels.shape[1], "pixels": pixels.tobytes()}
            except Exception as error:
                result |= {"stage": "decode", "error": describe(error)}
        yield pa.Table.from_pylist([result], schema=DECODED)


def write(table: pa.Table, output: str, method: str, model: str) -> pa.Table:
    """Write a block of results, and return one row of counts for the driver."""
    store = Store(output)
    rows = table.to_pylist()
    errors = [row for row in rows if row["error"] is not None]
    maps = [row for row in rows if row["error"] is None]
    files = {"maps": "", "errors": ""}
    for row in maps:
        levels = np.frombuffer(row["levels"], np.uint8).reshape(row["height"], row["width"])
        row |= {"saliency": {"bytes": encode_map(levels), "path": None}, "method": method, "model": model}
    if maps:
        files["maps"] = store.write_table("maps", pa.Table.from_pylist(maps, MAPS))
    if errors:
        files["errors"] = store.write_table("errors", pa.Table.from_pylist(errors, ERRORS))
    images = {row["image_id"]: row for row in maps}
    counts = {
        "images": len(images),
        "maps": len(maps),
        "errors": len(errors),
        "windows": sum(row["num_patches"] for row in images.values()),
        "patches": sum(row["num_patches"] for row in maps),
        "kept": sum(row["num_kept"] for row in maps),
        "actor_seconds": sum(row["seconds"] for row in maps),
        "maps_file": files["maps"],
        "errors_file": files["errors"],
    }
    return pa.Table.from_pylist([counts])
