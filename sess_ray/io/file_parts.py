"""What a driver holds of a run whose images become files: a line for each file of maps, or for a part of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.io.file_names import Names, stem_checksums, unique_names
from sess_ray.io.groups import read_images, stream_tables
from sess_ray.io.moved import Moved
from sess_ray.io.store import Store

PARTS = pa.schema(
    [
        ("file", pa.string()),  # of maps
        ("first", pa.int64()),  # number of a row there
        ("rows", pa.int64()),
        ("images", pa.int64()),
    ]
)
FILE_IMAGES = 2048  # a file with more is cut
PART_IMAGES = 1024  # into parts of so many
Known = tuple[Names, Moved | None]
Row = dict[str, Any]


def parts_of(
    run: Store, files: Sequence[str], columns: Sequence[str], noted: Callable[[pa.Table], None]
) -> tuple[list[dict[str, Any]], Names]:
    """Return the parts of a run's files, and what its images are called as files.

    Parameters
    ----------
    run : Store
    files : sequence of str
        Those of maps.
    columns : sequence of str
        What `noted` wants to see.
    noted : callable
        Called with the ids and these columns of each file.
    """
    parts: list[dict[str, Any]] = []
    stems = [np.empty(0, np.uint64)]
    for file, table in stream_tables(run, files, ["image_id", *columns]):
        noted(table)
        ids = table["image_id"].to_pylist()
        stems.append(stem_checksums(dict.fromkeys(ids)))
        parts += ({"file": file, **part} for part in _cut(ids))

    def again() -> Iterator[list[str]]:
        return (table["image_id"].unique().to_pylist() for _, table in stream_tables(run, files, ["image_id"]))

    return parts, unique_names(again, np.concatenate(stems))


def _cut(ids: Sequence[str]) -> Iterator[dict[str, int]]:
    """Cut the rows of a file: those of an image that follow one another stay together."""
    images = len(set(ids))
    if images <= FILE_IMAGES:
        if ids:
            yield {"first": 0, "rows": len(ids), "images": images}
        return
    first, found = 0, 1
    for row in range(1, len(ids)):
        if ids[row] != ids[row - 1]:
            if found == PART_IMAGES:
                yield {"first": first, "rows": row - first, "images": found}
                first, found = row, 0
            found += 1
    yield {"first": first, "rows": len(ids) - first, "images": found}


def images_in(
    part: Mapping[str, Any], run: Store, known: Known
) -> Iterator[tuple[dict[str, list[Row]], dict[str, str]]]:
    """Yield the rows of some images at a time, by their ids, and where these are now."""
    _, moved = known
    for images in read_images(run, part["file"], part["first"], part["rows"]):
        uris = {image_id: rows[-1]["uri"] for image_id, rows in images.items()}
        if moved:
            places = zip(images, moved.find(images), strict=True)
            uris |= {image_id: place for image_id, place in places if place is not None}
        yield images, uris
