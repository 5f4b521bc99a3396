"""The stages on CPU tasks, and what moves between stages. Nothing here needs torch: these workers start fast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sess_ray.access import Access, one_line, public, use
from sess_ray.errors import SessError
from sess_ray.io.cuts import numbers_of
from sess_ray.io.decode import Sides, shrunk
from sess_ray.io.items import is_shard
from sess_ray.io.maps import encode_map, quantize
from sess_ray.io.pieces import Whole, piece, place, place_of
from sess_ray.io.reading import stream_items
from sess_ray.io.shards import read_shard
from sess_ray.io.store import ERRORS, MAPS, Store, digest, stored_target
from sess_ray.pipeline.cluster.isolation import REASON, survived
from sess_ray.pipeline.cluster.rows import Row, flat, tables
from sess_ray.pipeline.explain import metering

if TYPE_CHECKING:
    from sess_ray.engine.explanation import Explanation
    from sess_ray.engine.targets import TargetSpec
    from sess_ray.models import Model
    from sess_ray.pipeline.explain.source import Source, TarSource

TASKS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("top", pa.string()),
        ("targets", pa.list_(pa.list_(pa.int32()))),  # of each, the alternatives; neither: the label says
        ("done", pa.list_(pa.string())),  # of a tar shard, what another run has explained
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)
# What else the row of a Dataset of the user's own holds; in the job the place of an image of a span, or null.
CARRIED = pa.field("carried", pa.large_binary())
DECODED = pa.schema(
    [
        *(field for field in TASKS if field.name != "done"),
        ("label", pa.string()),
        (
            "names",
            pa.list_(pa.string()),
        ),  # of classes, where a Dataset of the user's own, or a large manifest, says them
        ("labels", pa.list_(pa.string())),  # by a large manifest
        CARRIED,
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("rows", pa.int32()),  # of the pixels: fewer where less is needed
        ("columns", pa.int32()),
        ("pixels", pa.large_binary()),
    ]
)
ALONE = pa.schema([*DECODED, ("content", pa.large_binary())])  # an image, of a tar shard with its content
# One row an image, whatever number of targets it has: Ray may cut a block between rows, and what is written of an image
# must be written together.
OF_IMAGE = ("image_id", "uri", "predicted", "predicted_score", "height", "width", "num_patches")
OF_TARGET = ("target", "target_name", "target_classes", "score", "peak_x", "peak_y", "num_scored", "num_kept")
EXPLAINED = pa.schema(
    [
        *(MAPS.field(name) for name in OF_IMAGE),
        CARRIED,
        ("rows", pa.int32()),  # of the maps
        ("columns", pa.int32()),
        ("num_forwards", pa.int32()),  # windows scored, once for all targets
        ("maps", pa.list_(pa.struct([*(MAPS.field(name) for name in OF_TARGET), ("levels", pa.large_binary())]))),
        ("seconds", pa.float64()),  # of the actor; of images that share batches only the sum has a meaning
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)
NO_LABEL = "the image has no label"


def read_and_decode(
    table: pa.Table,
    access: Access,
    max_pixels: int,
    needed: Sides | None = None,
    source: Source | TarSource | None = None,
) -> Iterator[pa.Table]:
    """Read the images of a block and yield them with their pixels, or with the reason why there are none.

    With a `source` the block has lines, whose tasks are read here.
    """

    def reading(block: pa.Table, source: Source | TarSource | None = None) -> Iterator[pa.Table]:
        use(access)
        tasks = chain.from_iterable(_read(some, max_pixels, needed) for some in _together(block, source))
        yield from tables(tasks, DECODED)

    lost = partial(died, schema=DECODED, stage="decode")
    rows = partial(_each, access=access, source=source)
    yield from survived(table, partial(reading, source=source), lambda: reading, lost, rows)


def _together(table: pa.Table, source: Source | TarSource | None) -> Iterator[list[Row]]:
    """Yield the tasks of a block, as many as are read together."""
    if source is None:
        yield table.to_pylist()
    else:
        yield from source.together(table)


def _each(table: pa.Table, access: Access, source: Source | TarSource | None) -> Iterator[pa.Table]:
    """Yield the images of a block as tables of one row; those of tar shards with their content."""
    use(access)
    for row in chain.from_iterable(_together(table, source)):
        if row["error"] is not None or not is_shard(row["uri"]):
            yield pa.Table.from_pylist([row], ALONE)
            continue
        for member, content in _members(row):
            if isinstance(content, Exception):
                found = {**member, "stage": "read", "error": one_line(content)}
            else:
                found = {**member, "content": content}
            yield pa.Table.from_pylist([found], ALONE)


def _read(tasks: list[Row], max_pixels: int, needed: Sides | None) -> Iterator[Row]:
    images = []
    for row in tasks:
        if row["error"] is not None:
            yield _undecoded(row, row["stage"], row["error"])
        elif row.get("content") is not None:
            yield _decoded(row, row["content"], max_pixels, needed)
        elif is_shard(row["uri"]):
            for member, content in metering.waited("read", _members(row)):
                yield _decoded(member, content, max_pixels, needed)
        else:
            images.append(row)
    for index, content in metering.waited("read", stream_items([row["uri"] for row in images])):
        yield _decoded(images[index], content, max_pixels, needed)


def _members(shard: Row) -> Iterator[tuple[Row, bytes | Exception]]:
    """Yield the images of a shard that are left; where it is a span, the last with what all of them add up to."""
    if shard.get(CARRIED.name) is None:
        yield from ((row, content) for row, content in _every(shard) if content is not None)
        return
    own, whole, last = place_of(shard[CARRIED.name]), Whole(), None
    for row, content in _every(shard):
        numbers = numbers_of([row["image_id"]])
        whole = whole.plus(numbers)
        if content is None:
            continue
        if last is not None:
            yield last
        last = {**row, CARRIED.name: place(own.span, numbers, own.generations)}, content
    if last is not None:
        row, content = last
        yield {**row, CARRIED.name: place(own.span, place_of(row[CARRIED.name]).rows, own.generations, whole)}, content


def _every(shard: Row) -> Iterator[tuple[Row, bytes | Exception | None]]:
    """Yield the images of a shard, without the content of those that another run has explained; last what is wrong."""
    done, empty = shard["done"] or (), True
    try:
        for image in read_shard(shard["uri"], done):
            empty = False
            names = {
                "image_id": f"{shard['image_id']}/{image.name.lstrip('/')}",
                "uri": f"{shard['uri']}#{image.name}",
                "label": image.label,
            }
            yield {**shard, **names}, image.content
        if empty and not done:
            yield shard, SessError("the shard holds no image")
    except Exception as error:  # what is left of the shard
        yield shard, None if "" in done else error


def _decoded(row: Row, content: bytes | Exception, max_pixels: int, needed: Sides | None) -> Row:
    if isinstance(content, Exception):
        return _undecoded(row, "read", one_line(content))
    try:
        with metering.spent("decode"):
            pixels, (height, width) = shrunk(content, max_pixels, needed)
    except Exception as error:
        return _undecoded(row, "decode", one_line(error))
    rows, columns, _ = pixels.shape
    found = {"height": height, "width": width, "rows": rows, "columns": columns, "pixels": flat(pixels)}
    return {**row, "uri": public(row["uri"]), **found}


def _undecoded(row: Row, stage: str, error: str) -> Row:
    return {**row, "uri": row["uri"] and public(row["uri"]), "stage": stage, "error": error}


def died(row: pa.Table, schema: pa.Schema, stage: str) -> pa.Table:
    """Return the error of an image of which every worker died."""
    known = [name for name in ("image_id", "uri", CARRIED.name) if name in row.column_names]
    [named] = row.select(known).to_pylist()
    return pa.Table.from_pylist([_undecoded(named, stage, REASON)], schema)


def targets_of(row: Row, model: Model) -> TargetSpec:
    """Return what to explain of an image of `DECODED`; its label says it where the driver could not know."""
    from sess_ray.models.groups import meaning

    if row["top"] or row["targets"]:
        return row["top"] or row["targets"]
    names = row.get("names") or [row["label"]]
    if None in names:
        raise SessError(NO_LABEL)
    return [dict([meaning(name, model)]) for name in names]


def failed(row: Row) -> Row:
    """Return the row of `EXPLAINED` of an image that could not be explained."""
    return {name: row.get(name) for name in ("image_id", "uri", CARRIED.name, "stage", "error")}


def succeeded(row: Row, explanations: list[Explanation], seconds: float) -> Row:
    """Return the row of `EXPLAINED` of an image; of its maps in 0..1 it keeps the levels that are stored.

    Peaks are in pixels of the image: where maps are smaller, in the middle of what a pixel of theirs covers.
    """
    distinct = {explanation.target: explanation for explanation in explanations}  # alternatives may meet in one class
    [first, *_] = explanations
    rows, columns = first.saliency.shape

    def peak(explanation: Explanation) -> dict[str, int]:
        x, y = explanation.peak
        return {"peak_x": int((x + 0.5) * row["width"] / columns), "peak_y": int((y + 0.5) * row["height"] / rows)}

    image = {
        "image_id": row["image_id"],
        "uri": row["uri"],
        CARRIED.name: row.get(CARRIED.name),
        "predicted": first.predicted,
        "predicted_score": first.predicted_score,
        "height": row["height"],
        "width": row["width"],
        "rows": rows,
        "columns": columns,
        "num_patches": first.num_patches,
        "num_forwards": first.num_forwards,
        "seconds": seconds,
    }
    maps = [
        {
            "target": stored_target(explanation.target_classes),
            "target_name": explanation.target_name,
            "target_classes": explanation.target_classes,
            "score": explanation.score,
            **peak(explanation),
            "num_scored": explanation.num_scored,
            "num_kept": explanation.num_kept,
            "levels": quantize(explanation.saliency).tobytes(),
        }
        for explanation in distinct.values()
    ]
    return {**image, "maps": maps}


@metering.spent("write")
def write(table: pa.Table, access: Access, output: str, method: str, model: str) -> pa.Table:
    """Write a block of results, and return one row of counts for the driver.

    The files are named by the images of the block, so that a block that Ray computes again replaces itself.
    """
    use(access)
    store = Store(output)
    rows = table.to_pylist()
    errors = [row for row in rows if row["error"] is not None]
    images = [row for row in rows if row["error"] is None]
    maps = [row for image in images for row in map_rows(image, method, model)]
    of_maps, of_errors = _names(images, errors, len(maps))
    return pa.Table.from_pylist(
        [
            {
                "images": len(images),
                "maps": len(maps),
                "errors": len(errors),
                "failed": [row["stage"] for row in errors],
                "windows": sum(row["num_forwards"] for row in images),
                "patches": sum(row["num_patches"] for row in maps),
                "kept": sum(row["num_kept"] for row in maps),
                "actor_seconds": sum(row["seconds"] for row in images),
                "maps_file": store.replace_table("maps", of_maps, pa.Table.from_pylist(maps, MAPS)),
                "errors_file": store.replace_table("errors", of_errors, pa.Table.from_pylist(errors, ERRORS)),
            }
        ]
    )


def _names(images: list[Row], errors: list[Row], maps: int) -> tuple[str, str]:
    """Return what the files of a block's maps and errors are called: by the rows of their span, or by the ids."""
    cells = [row[CARRIED.name] for row in (*images, *errors)]
    if None in cells or not cells:
        name = digest([row["image_id"] for row in (*images, *errors)])
        return name, name
    places = [[place_of(row[CARRIED.name]) for row in some] for some in (images, errors)]
    [(span, beside)] = {one[:2] for one in chain(*places)}  # a block is of one line
    rows = [[number for one in some for number in one.rows] for some in places]
    wholes = [next((one.whole for one in some if one.whole), None) for some in places]
    of_maps = piece(span, rows[0], len(images), maps, beside.maps, whole=wholes[0])
    return of_maps.stem, piece(span, rows[1], len(errors), 0, beside.errors, whole=wholes[1]).stem


def map_rows(image: Row, method: str, model: str) -> list[Row]:
    """Return the rows of maps/ of an image of `EXPLAINED`, with PNGs."""
    rows = []
    for found in image["maps"]:
        levels = np.frombuffer(found["levels"], np.uint8).reshape(image["rows"], image["columns"])
        saliency = {"bytes": encode_map(levels), "path": None}
        rows.append({**image, **found, "saliency": saliency, "method": method, "model": model})
    return rows
